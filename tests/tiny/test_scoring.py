"""Many candidates in one pass score exactly as each would alone."""

from collections.abc import Callable

import pytest
import torch

from burnish.errors import WrongModelError
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Item, score
from conftest import random_enhancement
from families import FAMILIES

Models = Callable[..., Model]
PROMPTS = ["Hello", "Describe a lighthouse at dusk.", "Why?"]
ANSWERS = [[40, 41, 42], [50], [60, 61, 62, 63, 64]]


def items(model: Model) -> list[Item]:
    return [Item(model.tokens(p), a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]


@torch.inference_mode()
def plain(model: Model, item: Item) -> torch.Tensor:
    """Log probabilities [answer tokens, vocabulary] of one item by an ordinary forward pass."""
    logits = model.network(input_ids=torch.tensor([item.prompt + item.answer]), use_cache=False).logits[0]
    return logits[len(item.prompt) - 1 : -1].double().log_softmax(-1)


def late(model: Model, factor: float, seed: int = 0) -> list[float]:
    """Gains in the last edited layer only."""
    gains = [0.0] * model.anatomy.layers
    gains[model.anatomy.attention()[-1].layer] = factor
    return gains


@pytest.mark.parametrize("window", ["all", "late"])
@pytest.mark.parametrize("family", FAMILIES)
def test_batched_candidates_equal_separate_plain_passes(family: str, window: str, tiny_model: Models) -> None:
    model = tiny_model(family)
    gains = [late(model, f) if window == "late" else f for f in (0.5, 2.0, -0.7)]
    enhancements = [random_enhancement(model, g, seed=i, rank=1 + i % 2) for i, g in enumerate(gains)]
    rows = items(model)
    found = score(model, rows, [Candidate(str(i), e) for i, e in enumerate(enhancements)], tokens=120)
    base = [plain(model, item) for item in rows]
    for enhancement, scores in zip(enhancements, found.candidates, strict=True):
        with model.enhanced(enhancement):
            for item, p, own, reference in zip(rows, base, scores, found.base, strict=True):
                q = plain(model, item)
                answer = torch.tensor(item.answer)[:, None]
                torch.testing.assert_close(own.log_probability, q.gather(1, answer)[:, 0], rtol=1e-3, atol=2e-4)
                torch.testing.assert_close(reference.log_probability, p.gather(1, answer)[:, 0], rtol=1e-3, atol=2e-4)
                torch.testing.assert_close(own.kl, (p.exp() * (p - q)).sum(-1), rtol=1e-2, atol=1e-4)


def test_a_candidate_that_does_nothing_has_no_divergence(tiny_model: Models) -> None:
    model = tiny_model("llama")
    found = score(model, items(model), [Candidate("nothing"), Candidate("zero", random_enhancement(model, 0.0))])
    for scores in found.candidates:
        for own, reference in zip(scores, found.base, strict=True):
            assert own.kl.max() < 1e-6  # rows of one batch may differ in the last bit
            assert not own.flipped.any()
            torch.testing.assert_close(own.log_probability, reference.log_probability, rtol=1e-5, atol=1e-5)


def test_steering_adds_its_vector_to_every_block(tiny_model: Models) -> None:
    model = tiny_model("llama")
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.0, 1.0, 0.5])[:, None]
    found = score(model, items(model), [Candidate("steered", steering=vectors)])
    handles = [
        block.register_forward_hook(lambda module, arguments, output, v=vectors[layer]: output + v)
        for layer, block in enumerate(model.network.model.layers)
    ]
    for item, own in zip(items(model), found.candidates[0], strict=True):
        expected = plain(model, item).gather(1, torch.tensor(item.answer)[:, None])[:, 0]
        torch.testing.assert_close(own.log_probability, expected, rtol=1e-3, atol=2e-4)
    for handle in handles:
        handle.remove()


def test_the_batch_size_does_not_matter_and_the_model_is_left_as_it_was(tiny_model: Models) -> None:
    model = tiny_model("llama")
    candidates = [Candidate(str(i), random_enhancement(model, late(model, 0.3 * i), seed=i)) for i in range(5)]
    before = plain(model, items(model)[0])
    found = [score(model, items(model), candidates, tokens=tokens) for tokens in (1, 150, 100_000)]
    for other in found[1:]:
        for one, two in zip(found[0].candidates, other.candidates, strict=True):
            for a, b in zip(one, two, strict=True):
                torch.testing.assert_close(a.kl, b.kl, rtol=1e-3, atol=1e-6)
    assert torch.equal(plain(model, items(model)[0]), before)


def test_bad_items_and_other_models_are_refused(tiny_model: Models) -> None:
    model = tiny_model("llama")
    assert score(model, [], [Candidate("x")]).candidates == ((),)
    with pytest.raises(ValueError, match="at least one token"):
        score(model, [Item([1, 2], [])], [])
    other = random_enhancement(tiny_model("kanana"), 0.5)
    with pytest.raises(WrongModelError):
        score(model, items(model), [Candidate("other", other)])
