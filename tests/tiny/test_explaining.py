"""Planted truth: where a known direction, layer, head and token are responsible, the facts name them."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from burnish.artifacts.direction import Enhancement
from burnish.evaluation.pairs import Answered
from burnish.explaining.attribution import attribute
from burnish.explaining.direction_facts import corpus_facts, direction_facts, layer_tokens, written
from burnish.explaining.dose import dose_curve
from burnish.explaining.explaining import applied_gains, explain
from burnish.explaining.prompt_sets import Sets
from burnish.explaining.shaded_answers import shaded_answers, token_texts
from burnish.finding import find_direction
from burnish.model.heads import HeadEdit, likelihood
from burnish.model.logit_lens import after_blocks, token_projections, vocabulary_weights
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Item, score
from burnish.options import EvaluateOptions, ExplainOptions, FindOptions
from burnish.prompts import Prompt, PromptSet
from burnish.prompts.domains import load_domain
from burnish.tuning.aims import Speciality
from conftest import random_enhancement
from families import MOST

TinyModel = Callable[..., Model]
ITEMS = [Item([1, 5, 9, 4], [7, 8, 3]), Item([1, 6], [2, 9, 9, 4]), Item([3, 3, 8], [5])]


def test_a_direction_that_is_a_tokens_row_of_the_unembedding_promotes_that_token(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    head = model.network.get_output_embeddings().weight.detach().float()
    centred = head - head.mean(0)
    for token in (7, 40):
        assert int(vocabulary_weights(model, centred[token : token + 1])[0].argmax()) == token


@MOST
def test_vocabulary_weights_are_the_slope_of_the_logits_where_the_norms_scale_stands_still(
    family: str, tiny_model: TinyModel
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


def test_token_projections_are_those_of_the_hidden_states(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    vectors = torch.randn(2, model.anatomy.hidden_size, generator=torch.Generator().manual_seed(1))
    sequences = [[1, 5, 9, 4, 7], [1, 6, 2]]
    found = token_projections(model, sequences, vectors, 1)
    for row, sequence in zip(found, sequences, strict=True):
        with torch.inference_mode():
            states = model.network(torch.tensor([sequence]), output_hidden_states=True).hidden_states[2][0]
        assert torch.allclose(row, states.float() @ vectors.T, atol=1e-5)


@MOST
def test_all_heads_together_are_the_enhancement(tiny_model: TinyModel, family: str) -> None:
    model = tiny_model(family)
    enhancement = random_enhancement(model, 0.8, rank=2)
    edit = HeadEdit(model, enhancement)
    assert family not in ("llama", "llama-biased", "gpt2", "gemma2", "kanana") or not edit.whole
    expected = score(model, ITEMS, [Candidate("whole", enhancement)]).candidates[0]
    mean = sum(float(s.log_probability.mean()) for s in expected) / len(ITEMS)
    assert likelihood(model, ITEMS, edit, edit.shares(1.0))[0] == pytest.approx(mean, abs=1e-5)


def test_the_derivative_by_head_is_the_finite_difference(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    edit = HeadEdit(model, random_enhancement(model, 0.5))
    _, slope = likelihood(model, ITEMS, edit, edit.shares(), gradient=True)
    assert slope is not None
    for layer, head in ((0, 0), (1, edit.heads - 1)):
        values = []
        for step in (0.05, -0.05):
            shares = edit.shares()
            shares[layer, head] = step
            values.append(likelihood(model, ITEMS, edit, shares)[0])
        assert float(slope[layer, head]) == pytest.approx((values[0] - values[1]) / 0.1, abs=2e-5)


def test_the_one_head_that_writes_is_named(tiny_model: TinyModel) -> None:
    model = tiny_model("llama", own=True)
    enhancement = random_enhancement(model, 1.0)
    projection = next(p for p in model.anatomy.attention() if p.layer == 1)
    weight = model.network.get_submodule(projection.path).weight
    size = projection.inputs // HeadEdit(model, enhancement).heads
    kept = weight.detach().clone()
    with torch.no_grad():
        for p in model.anatomy.attention():
            model.network.get_submodule(p.path).weight.zero_()
        weight[:, size : 2 * size] = 20 * kept[:, size : 2 * size]
    found = attribute(
        model, enhancement, [Answered(Prompt.of("hello"), [7, 8, 3]), Answered(Prompt.of("you"), [2, 9])], "user"
    )
    assert (found.heads[0].layer, found.heads[0].head) == (1, 1)
    assert max(found.layers, key=lambda part: abs(part.first_order)).layer == 1
    assert found.heads[0].measured == pytest.approx(found.total, rel=1e-4)
    assert all(abs(part.first_order) < 1e-7 for part in found.heads[1:])


def _sets(model: Model) -> tuple[PromptSet, PromptSet]:
    domain = load_domain("creative-writing")
    return (
        PromptSet("enhance", domain.enhance.prompts[:12]),
        PromptSet("normal", tuple(Prompt.of(f"What is {n} plus {n}?") for n in range(12))),
    )


@MOST
def test_the_writers_shares_add_up_to_one(tiny_model: TinyModel, family: str) -> None:
    model = tiny_model(family)
    enhance, normal = _sets(model)
    direction = find_direction(model, enhance=enhance, normal=normal, options=FindOptions(layer_idx="1", force=True))
    sets = Sets(Speciality(load_domain("creative-writing")), (enhance, normal), (enhance, normal), None, True)
    writers, own = written(model, direction, sets)
    assert sum(w.share for w in writers) == pytest.approx(1, abs=1e-6)
    assert len(writers) == 1 + 2 * 2
    assert own is not None
    assert float(own[1] @ direction.vectors[1].double()) == pytest.approx(1, abs=1e-4)


def test_facts_of_a_direction_hold_every_set_and_layer(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    enhance, normal = _sets(model)
    direction = find_direction(model, enhance=enhance, normal=normal, options=FindOptions(layer_idx="1", force=True))
    sets = Sets(Speciality(load_domain("creative-writing")), (enhance, normal), (enhance, normal), None, True)
    facts = direction_facts(model, direction, sets, name_language=None, corpus=normal)
    assert [p.role for p in facts.projected] == ["enhance", "normal"]
    assert sum(facts.projected[1].values) == pytest.approx(0, abs=1e-3)
    assert len(facts.quality) == model.anatomy.layers
    assert len(facts.tokens) == 1
    assert facts.likenesses is None
    assert facts.corpus is not None and facts.corpus.texts == 12
    assert facts.corpus.most_tokens[0].projection >= facts.corpus.least_tokens[0].projection


def test_a_planted_token_of_a_corpus_projects_most(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    corpus = PromptSet("corpus", (Prompt.of("the cat sat on a mat"), Prompt.of("one two three four")))
    row = list(model.tokenizer("the cat sat on a mat")["input_ids"])
    states = token_projections(model, [row], torch.eye(model.anatomy.hidden_size), 1)[0]
    enhance, normal = _sets(model)
    direction = find_direction(model, enhance=enhance, normal=normal, options=FindOptions(layer_idx="1", force=True))
    others = torch.cat([states[:2], states[3:]])
    vector = 10 * states[2] - others.mean(0)
    found = corpus_facts(model, corpus, vector, direction)
    assert found.most_tokens[0].token == str(model.tokenizer.decode([row[2]]))


def test_pieces_of_an_answer_join_to_the_answer(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    tokens = list(model.tokenizer("a naive cafe costs 3", add_special_tokens=False)["input_ids"])
    assert "".join(token_texts(model, tokens)) == str(model.tokenizer.decode(tokens))


def test_without_an_edit_no_token_changes(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    enhancement = random_enhancement(model, 0.0)
    found = shaded_answers(model, enhancement, enhancement.directions[0], [Prompt.of("hello")], tokens=6)
    assert [t.text for t in found[0].base] == [t.text for t in found[0].enhanced]
    assert all(abs(t.change) < 1e-5 for t in found[0].base)


def test_an_enhancement_without_known_prompts_says_what_is_missing(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    enhancement = random_enhancement(model, 0.4)
    found = explain(model, enhancement, options=ExplainOptions(answers=1, tokens=4, skip_likenesses=True))
    assert any("not at hand" in note for note in found.notes)
    assert found.attribution is None
    assert len(found.gains) == model.anatomy.layers
    assert [g.asked for g in found.gains] == pytest.approx([0.4] * model.anatomy.layers)


def test_zero_gains_are_no_gains(tiny_model: TinyModel) -> None:
    assert applied_gains(random_enhancement(tiny_model("llama"), 0.0)) == ()


def test_every_layer_of_a_direction_a_layer_has_its_own_tokens(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    vectors: torch.Tensor = replace(random_enhancement(model, 1.0)).vectors[:, 0]
    assert [t.layer for t in layer_tokens(model, vectors, single=False)] == list(range(model.anatomy.layers))
    assert isinstance(random_enhancement(model, 1.0), Enhancement)


def test_the_dose_curve_is_the_score_of_each_strength(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    enhancement = random_enhancement(model, 0.8)
    rows = [
        Answered(Prompt((("user", "how to teach a child"),)), [5, 9, 4]),
        Answered(Prompt((("user", "a letter"),)), [7, 7]),
    ]
    how = EvaluateOptions(prompts=4, tokens=4)
    found = dose_curve(model, enhancement, "en", rows, "log probability", how)
    assert (found.prompts, found.answers) == (4, 2)
    items = [Item(model.tokens(row.prompt), row.answer) for row in rows]
    for dose in found.doses:
        scores = score(model, items, [Candidate("one", enhancement.scaled(dose.multiple))])
        changes = [
            float((s.log_probability - b.log_probability).mean())
            for s, b in zip(scores.candidates[0], scores.base, strict=True)
        ]
        assert dose.likelihood is not None
        assert dose.likelihood.mean == pytest.approx(sum(changes) / 2, abs=1e-5)
    damages = [dose.damage.mean for dose in found.doses]
    assert damages == sorted(damages)
    assert found.at_one.multiple == 1
    assert all(d.likelihood is None for d in dose_curve(model, enhancement, "en", [], "", how).doses)
