"""Derivatives with respect to the gains, against finite differences and an independent Monte Carlo."""

from dataclasses import replace

import pytest
import torch

from burnish.model.derivatives import derivatives
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
            assert result[:, layer, k].tolist() == pytest.approx(slope, rel=0.05, abs=tolerance)


def test_no_hook_and_no_gradient_stays_behind(tiny_model: Models) -> None:
    model = tiny_model("llama")
    items, plan = items_of(model), random_enhancement(model, 0.5)
    asking = [p.requires_grad for p in model.network.parameters()]
    before = score(model, items, []).base
    derivatives(model, items, plan.vectors, plan.gains)
    after = score(model, items, []).base
    assert all(torch.equal(a.log_probability, b.log_probability) for a, b in zip(before, after, strict=True))
    assert [p.requires_grad for p in model.network.parameters()] == asking
    assert all(p.grad is None for p in model.network.parameters())
