"""Planted truth: where a known direction, layer, head and token are responsible, the facts name them."""

from dataclasses import replace

import pytest
import torch

from burnish.evaluation.pairs import Answered
from burnish.explaining.attribution import attribute
from burnish.explaining.direction_facts import direction_facts
from burnish.explaining.dose import dose_curve
from burnish.explaining.explaining import explain
from burnish.model.logit_lens import after_blocks, vocabulary_weights
from burnish.model.scoring import Candidate, Item, score
from burnish.options import EvaluateOptions, ExplainOptions
from burnish.prompts import Prompt
from conftest import Models, random_enhancement
from families import MOST

ANSWERS = [Answered(Prompt.of("hello"), [7, 8, 3]), Answered(Prompt.of("you"), [2, 9])]


@MOST
def test_vocabulary_weights_are_the_slope_of_the_logits_where_the_norms_scale_stands_still(
    family: str, tiny_model: Models
) -> None:
    model = tiny_model(family)
    generator = torch.Generator().manual_seed(3)
    state, vector = torch.randn(2, model.anatomy.hidden_size, generator=generator)
    state = state - state.mean()
    vector = vector - (vector @ state) / (state @ state) * state  # the scale does not change to first order
    norm, maps = after_blocks(model)

    def logits(step: torch.Tensor) -> torch.Tensor:
        moved = (state + step * vector)[None]
        for module in (*([] if norm is None else [norm]), *maps):
            moved = module(moved)
        return moved[0]

    _, slope = torch.autograd.functional.jvp(logits, torch.zeros(()), torch.ones(()))
    slope = (slope - slope.mean()) / slope.std()
    torch.testing.assert_close(vocabulary_weights(model, vector[None])[0], slope.detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "olmo2"])  # smooth ones: no expert is chosen anew
def test_first_order_parts_of_the_layers_are_the_finite_difference(tiny_model: Models, family: str) -> None:
    model = tiny_model(family)
    enhancement = random_enhancement(model, 0.8, rank=2)
    attribution = attribute(model, enhancement, ANSWERS, "user")
    items = [Item(model.tokens(row.prompt), row.answer) for row in ANSWERS]
    step = 0.01
    scores = score(model, items, [Candidate("step", enhancement.scaled(sign * step)) for sign in (1, -1)])
    after, before = (sum(float(s.log_probability.mean()) for s in rows) / len(items) for rows in scores.candidates)
    assert attribution.first_order == pytest.approx((after - before) / (2 * step), abs=2e-4)
    assert attribution.first_order == pytest.approx(sum(part.first_order for part in attribution.layers))


def test_the_one_layer_that_writes_is_named(tiny_model: Models) -> None:
    model = tiny_model("llama", own=True)
    enhancement = random_enhancement(model, 1.0)
    with torch.no_grad():
        for p in model.anatomy.attention():
            model.network.get_submodule(p.path).weight.mul_(20 if p.layer == 1 else 0)
    attribution = attribute(model, enhancement, ANSWERS, "user")
    parts = {part.layer: part for part in attribution.layers}
    assert parts[1].measured == pytest.approx(attribution.total, rel=1e-4)
    assert abs(parts[1].first_order) > 1e-5
    assert all(abs(part.first_order) < 1e-7 for layer, part in parts.items() if layer != 1)


def test_facts_of_a_direction_hold_every_layer(tiny_model: Models) -> None:
    model = tiny_model("llama")
    layers = list(range(model.anatomy.layers))
    direction = random_enhancement(model, 1.0).directions[0]
    for scope, read in (("single", layers[-1:]), ("per-layer", layers)):
        facts = direction_facts(model, replace(direction, scope=scope), name_language=None)
        assert [q.layer for q in facts.quality] == layers
        assert [t.layer for t in facts.tokens] == read
        assert facts.likenesses is None


def test_without_an_edit_both_answer_the_same(tiny_model: Models) -> None:
    model = tiny_model("llama")
    options = ExplainOptions(answers=2, tokens=4, skip_likenesses=True)
    explanation = explain(model, random_enhancement(model, 0.0), options=options)
    assert len(explanation.answers) == 2
    assert all(pair.base == pair.enhanced for pair in explanation.answers)
    assert explanation.gains == ()


def test_an_enhancement_without_known_prompts_is_not_attributed(tiny_model: Models) -> None:
    model = tiny_model("llama")
    enhancement = random_enhancement(model, 0.4)
    explanation = explain(model, enhancement, options=ExplainOptions(answers=0, tokens=4, skip_likenesses=True))
    assert explanation.attribution is None
    assert explanation.answers == ()
    assert len(explanation.gains) == model.anatomy.layers
    assert [g.asked for g in explanation.gains] == pytest.approx([0.4] * model.anatomy.layers)


def test_the_dose_curve_is_the_score_of_each_strength(tiny_model: Models) -> None:
    model = tiny_model("llama")
    enhancement = random_enhancement(model, 0.8)
    rows = [
        Answered(Prompt((("user", "how to teach a child"),)), [5, 9, 4]),
        Answered(Prompt((("user", "a letter"),)), [7, 7]),
    ]
    how = EvaluateOptions(prompts=4, tokens=4)
    curve = dose_curve(model, enhancement, "en", rows, "log probability", how)
    assert (curve.prompts, curve.answers) == (4, 2)
    items = [Item(model.tokens(row.prompt), row.answer) for row in rows]
    for dose in curve.doses:
        scores = score(model, items, [Candidate("one", enhancement.scaled(dose.multiple))])
        changes = [
            float((s.log_probability - b.log_probability).mean())
            for s, b in zip(scores.candidates[0], scores.base, strict=True)
        ]
        assert dose.likelihood is not None
        assert dose.likelihood.mean == pytest.approx(sum(changes) / 2, abs=1e-5)
    damages = [dose.damage.mean for dose in curve.doses]
    assert damages == sorted(damages)
    assert curve.at_one.multiple == 1
    assert all(d.likelihood is None for d in dose_curve(model, enhancement, "en", [], "", how).doses)
