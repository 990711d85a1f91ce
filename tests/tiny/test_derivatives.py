"""Derivatives with respect to the gains, against finite differences and an independent Monte Carlo."""

from dataclasses import replace

import pytest
import torch

from burnish.maths.trust_region import information
from burnish.model.derivatives import derivatives
from burnish.model.divergence import prompt_kl
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Item, score
from conftest import Models, random_enhancement

# (step, tolerance): an expert's choice and a rectifier have kinks that a wide step crosses.
FAMILIES = {
    "llama": (0.02, 2e-4),
    "gpt2": (0.02, 2e-4),
    "gemma2": (0.02, 2e-4),
    "qwen3_moe": (0.002, 2e-3),
    "opt": (0.002, 2e-3),
}


def items_of(model: Model, count: int = 3) -> list[Item]:
    generator = torch.Generator().manual_seed(1)
    texts = ["Tell me of the sea", "Why", "A longer question about ovens and the moon"][:count]
    return [
        Item(model.tokens(t), torch.randint(20, 60, (4 + n,), generator=generator).tolist())
        for n, t in enumerate(texts)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_equals_finite_differences(family: str, tiny_model: Models) -> None:
    model = tiny_model(family)
    items = items_of(model)
    plan = random_enhancement(model, 0.3, rank=2)
    result = derivatives(model, items, plan.vectors, plan.gains)
    step, tolerance = FAMILIES[family]
    for layer in range(model.anatomy.layers):
        for k in range(2):
            moved = []
            for sign in (1, -1):
                gains = plan.gains.clone()
                gains[layer, k] += sign * step
                moved.append(Candidate("moved", replace(plan, gains=gains)))
            up, down = score(model, items, moved).candidates
            slope = [
                float(a.log_probability.mean() - b.log_probability.mean()) / (2 * step)
                for a, b in zip(up, down, strict=True)
            ]
            assert result.gradient[:, layer, k].tolist() == pytest.approx(slope, rel=0.05, abs=tolerance)


def test_log_probabilities_are_those_of_scoring(tiny_model: Models) -> None:
    model = tiny_model("llama")
    items, plan = items_of(model), random_enhancement(model, 0.3)
    scored = score(model, items, [Candidate("plan", plan)]).candidates[0]
    result = derivatives(model, items, plan.vectors, plan.gains)
    assert result.log_probability.tolist() == pytest.approx([float(s.log_probability.mean()) for s in scored], abs=1e-5)
    assert result.tokens.tolist() == [len(i.answer) for i in items]


def test_the_information_equals_that_of_sampled_labels_and_predicts_the_damage(tiny_model: Models) -> None:
    model = tiny_model("llama")
    items = items_of(model)
    plan = random_enhancement(model, 0.0)
    sketched = derivatives(model, items, plan.vectors, plan.gains, sketches=600)
    ours = information(sketched.sketches.flatten(2), sketched.tokens)
    # Independently: the exact information from the Jacobian of the logits by finite differences, diag(p) - p p^T inside.
    step, layers = 0.02, model.anatomy.layers
    jacobian = []
    for layer in range(layers):
        sides = []
        for sign in (1, -1):
            gains = torch.zeros(layers, 1)
            gains[layer] = sign * step
            sides.append(_logits(model, items, replace(plan, gains=gains)))
        jacobian.append((sides[0] - sides[1]) / (2 * step))
    slopes = torch.stack(jacobian)  # [layers, tokens, vocabulary]
    p = _logits(model, items, plan).softmax(-1)
    centred = slopes - (p * slopes).sum(-1, keepdim=True)
    share = torch.cat([torch.full((len(i.answer),), 1 / len(i.answer) / len(items)).double() for i in items])
    exact = torch.einsum("ltv,mtv,t->lm", centred * p, centred, share)
    torch.testing.assert_close(ours, exact, rtol=0.2, atol=0.1 * float(exact.diagonal().mean()))
    # Monte Carlo with labels drawn from p: the score's outer products.
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(p.float(), 4000, replacement=True, generator=generator)  # [tokens, draws]
    scores = torch.stack([c.gather(1, labels) for c in centred])  # [layers, tokens, draws]
    drawn = torch.einsum("lts,mts,t->lm", scores, scores, share) / scores.shape[2]
    torch.testing.assert_close(ours, drawn, rtol=0.25, atol=0.12 * float(exact.diagonal().mean()))
    # Half the quadratic form is the mean KL of small gains.
    gains = 0.05 * torch.randn(layers, 1, generator=generator)
    kl = prompt_kl(score(model, items, [Candidate("s", replace(plan, gains=gains))]).candidates[0])
    predicted = float(gains[:, 0].double() @ exact @ gains[:, 0].double()) / 2
    assert float(kl.mean()) == pytest.approx(predicted, rel=0.2)


@torch.inference_mode()
def _logits(model: Model, items: list[Item], plan: object) -> torch.Tensor:
    rows = []
    with model.enhanced(plan):  # type: ignore[arg-type]
        for item in items:
            logits = model.network(torch.tensor([item.prompt + item.answer])).logits[0]
            rows.append(logits[len(item.prompt) - 1 : -1].double())
    return torch.cat(rows)


def test_groups_do_not_know_of_each_other(tiny_model: Models) -> None:
    model = tiny_model("llama")
    items = items_of(model)
    one, two = random_enhancement(model, 0.0, rank=2), random_enhancement(model, 0.0, seed=4)
    vectors = torch.cat([one.vectors, two.vectors], 1)
    none = torch.zeros(vectors.shape[:2])
    together = derivatives(model, items, vectors, none, groups=[2, 1]).gradient
    torch.testing.assert_close(
        together[..., :2], derivatives(model, items, one.vectors, one.gains).gradient, rtol=1e-3, atol=1e-5
    )
    torch.testing.assert_close(
        together[..., 2:], derivatives(model, items, two.vectors, two.gains).gradient, rtol=1e-3, atol=1e-5
    )


def test_no_hook_and_no_gradient_stays_behind(tiny_model: Models) -> None:
    model = tiny_model("llama")
    items, plan = items_of(model), random_enhancement(model, 0.5)
    asking = [p.requires_grad for p in model.network.parameters()]
    before = score(model, items, []).base
    derivatives(model, items, plan.vectors, plan.gains, sketches=1)
    after = score(model, items, []).base
    assert all(torch.equal(a.log_probability, b.log_probability) for a, b in zip(before, after, strict=True))
    assert [p.requires_grad for p in model.network.parameters()] == asking
    assert all(p.grad is None for p in model.network.parameters())
