"""The differentiable pass: distances to a teacher, and their derivative with respect to the edit."""

import pytest
import torch

from burnish.artifacts.direction import Enhancement
from burnish.learning.teacher import guided, without_loops
from burnish.maths.symmetric import orthonormal_form, signs
from burnish.model.imitation import LOWEST, Lesson, SymmetricEdit, imitate, log_probabilities
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Item, score
from conftest import Models, fake_direction

FAMILIES = [
    "llama",
    "llama-biased",
    "kanana",
    "gemma2",
    "olmo2",
    "gpt2",
    "gpt_neox",
    "cohere",
    "mixtral",
    "qwen3_next",
    "jamba",
    "deepseek_v3",
]
TEXTS = ["Tell the sea", "Show the way to the oven", "Name"]


def lessons(model: Model, system: str = "Sing") -> list[Lesson]:
    answers = [[40, 50, 60, 70], [41, 51, 61], [42, 52, 62, 72, 82]]
    taught = log_probabilities(model, [Item(model.tokens(t, system), a) for t, a in zip(TEXTS, answers, strict=True)])
    plain = [Item(model.tokens(t), a) for t, a in zip(TEXTS, answers, strict=True)]
    return [Lesson(item, target) for item, target in zip(plain, taught, strict=True)]


def free_edit(model: Model, *, seed: int = 0, size: float = 0.3) -> SymmetricEdit:
    generator = torch.Generator().manual_seed(seed)
    hidden = model.anatomy.hidden_size
    rows = torch.randn(model.anatomy.layers, 2, hidden, generator=generator) * size / hidden**0.5
    return SymmetricEdit(rows.requires_grad_(), signs(2))


@pytest.mark.parametrize(("family", "first"), [*((family, 0) for family in FAMILIES), ("llama", 1)])
def test_the_gradient_is_that_of_finite_differences(family: str, first: int, tiny_model: Models) -> None:
    """first: layers before it have rows of zeros, and no gradient."""
    model = tiny_model(family)
    edit, known = free_edit(model), lessons(model)
    weights = [0.5, 0.2, 0.3]
    with torch.no_grad():
        edit.rows[:first] = 0

    def loss(rows: torch.Tensor) -> float:
        kl = imitate(model, SymmetricEdit(rows.clone().requires_grad_(), edit.signs), known, weights)
        return float(sum(w * k.sum() for w, k in zip(weights, kl, strict=True)))

    imitate(model, edit, known, weights)
    gradient = edit.rows.grad
    assert gradient is not None and not gradient[:first].any()
    way = torch.randn(edit.rows.shape, generator=torch.Generator().manual_seed(3))
    way[:first] = 0
    way *= 2e-2 / way.norm()
    rows = edit.rows.detach()
    slope = (loss(rows + way) - loss(rows - way)) / 2
    assert slope == pytest.approx(float((gradient * way).sum()), rel=0.05, abs=2e-6)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "kanana"])
def test_the_free_form_computes_what_its_directions_do(family: str, tiny_model: Models) -> None:
    model = tiny_model(family)
    edit, known = free_edit(model, size=0.6), lessons(model)
    kl = imitate(model, edit, known, [1.0] * 3)
    forms = [orthonormal_form(rows, edit.signs) for rows in edit.rows.detach()]
    vectors, gains = torch.stack([v for v, _ in forms]), torch.stack([g for _, g in forms])
    plan = Enhancement(vectors, gains, tuple(fake_direction(model, vectors[:, k]) for k in range(2)))
    with model.enhanced(plan):
        edited = log_probabilities(model, [lesson.item for lesson in known])
    for mine, target, predicted in zip(kl, (x.target for x in known), edited, strict=True):
        expected = (target.double().exp() * (target.double() - predicted.double())).sum(-1)
        torch.testing.assert_close(mine, expected, atol=2e-3, rtol=2e-2)


def test_log_probabilities_are_those_of_scoring(tiny_model: Models) -> None:
    model = tiny_model("llama")
    items = [lesson.item for lesson in lessons(model)]
    scores = score(model, items, [Candidate("none")]).base
    for row, item, expected in zip(log_probabilities(model, items), items, scores, strict=True):
        chosen = row.double().gather(1, torch.tensor(item.answer)[:, None])[:, 0]
        torch.testing.assert_close(chosen, expected.log_probability, atol=5e-3, rtol=1e-3)


def test_guidance_one_is_the_teacher_and_more_is_beyond_it() -> None:
    base, teacher = (torch.randn(3, 8, generator=torch.Generator().manual_seed(n)).log_softmax(-1) for n in (1, 2))
    torch.testing.assert_close(guided(base, teacher, 1.0), teacher)
    beyond = guided(base, teacher, 2.0)
    torch.testing.assert_close(beyond.exp().sum(-1), torch.ones(3))
    rising = (teacher - base).argmax(-1)
    assert bool((beyond - teacher).gather(1, rising[:, None]).gt(0).all())


def test_a_token_that_repeats_a_run_of_four_is_never_a_target() -> None:
    answer = [1, 2, 3, 4, 1, 2, 3, 4, 5]
    target = torch.zeros(len(answer), 8).log_softmax(-1)
    changed = without_loops(target, answer)
    assert float(changed[7, 4]) < LOWEST / 2  # the run 1 2 3 4 for the second time
    torch.testing.assert_close(changed.exp().sum(-1), torch.ones(len(answer)))
    torch.testing.assert_close(changed[[0, 1, 2, 3, 4, 5, 6, 8]], target[[0, 1, 2, 3, 4, 5, 6, 8]])
