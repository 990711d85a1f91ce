"""The search's evaluator measures what `measure` measures, and prunes only what is beyond the budget."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from burnish.errors import InputError, ModelError, WrongModelError
from burnish.evaluation.material import Answered, Halves, Pair
from burnish.model.model import Model
from burnish.model.scoring import Candidate
from burnish.options import TuneOptions
from burnish.prompts import Prompt, PromptSet
from burnish.tuning import search as module
from burnish.tuning.objective import Aim, Material, measure
from burnish.tuning.search import PRUNE, SearchSpace, evaluator, search
from conftest import random_enhancement

Models = Callable[..., Model]
TEXTS = [f"{word} the {thing}" for word in ("Tell", "Show", "Name") for thing in ("way", "sea", "oven", "moon")]
PROMPTS = PromptSet("own", tuple(Prompt.of(text) for text in TEXTS[:3]))
OPTIONS = TuneOptions(budget=0.01, movement=0.1, tokens=4)
DOSES = [0.0, 0.1, 0.3, 1.0, 4.0, 12.0]


def material_of(model: Model) -> Material:
    prompts = [model.tokens(text) for text in TEXTS]
    own = model.samples(prompts, 6, seed=0)
    with model.enhanced(random_enhancement(model, 3.0)):
        planted = model.samples(prompts, 6, seed=1)
    rows = tuple(Answered(Prompt.of(text), answer) for text, answer in zip(TEXTS, own, strict=True) if answer)
    pairs = tuple(Pair(Prompt.of(t), c, r) for t, c, r in zip(TEXTS, planted, own, strict=True) if c and r)
    return Material(
        (Aim("planted", Halves("made", pairs, pairs), 1.0),), (rows, rows[:2]), (rows, rows[:2]), (rows[:3], rows[:2])
    )


def test_candidates_are_pruned_only_beyond_the_budget_and_the_others_keep_their_values(tiny_model: Models) -> None:
    model = tiny_model("llama")
    material = material_of(model)
    candidates = [random_enhancement(model, dose) for dose in DOSES]
    found = evaluator(model, material, OPTIONS)(candidates)
    points = measure(model, material, [Candidate("e", e) for e in candidates])
    assert {outcome.pruned for outcome in found} == {True, False}
    for outcome, point in zip(found, points, strict=True):
        if outcome.pruned:
            assert PRUNE < outcome.damage <= point.load(OPTIONS) * 1.001
        else:
            assert outcome.effect == pytest.approx(point.effect, abs=1e-5)
            assert outcome.damage == pytest.approx(point.load(OPTIONS), rel=1e-2, abs=1e-4)
            assert outcome.feasible == point.keeps_likelihood(material.aims)


def test_a_search_on_a_model_finds_an_effect_within_the_budget_and_finds_it_again(
    tiny_model: Models, tmp_path: Path
) -> None:
    model = tiny_model("llama")
    material = material_of(model)
    space = SearchSpace({"planted": random_enhancement(model, 1.0), "other": random_enhancement(model, 1.0, seed=9)})
    evaluate = evaluator(model, material, replace(OPTIONS, budget=0.05))
    found = search(space, evaluate, trials=24, seed=0, identity="one", journal=tmp_path / "journal")
    assert found.chosen is not None
    assert found.chosen.outcome.effect > 0
    assert found.chosen.outcome.damage <= 1.05
    assert search(space, evaluate, trials=24, seed=0, identity="one") == found


def test_a_scorer_decides_what_counts(tiny_model: Models) -> None:
    model = tiny_model("llama")
    material = material_of(model)
    loose = replace(OPTIONS, budget=1e3, movement=1e3)
    candidates = [random_enhancement(model, dose) for dose in (0.0, 4.0)]
    found = evaluator(model, material, loose, scorer=lambda _, answer: len(answer), scorer_prompts=PROMPTS)(candidates)
    plain = model.generate(PROMPTS.prompts, tokens=8)
    with model.enhanced(candidates[1]):
        edited = model.generate(PROMPTS.prompts, tokens=8)
    change = sum(len(new) - len(old) for old, new in zip(plain, edited, strict=True)) / 3
    assert [outcome.effect for outcome in found] == [0.0, pytest.approx(change)]
    assert change != 0
    skipping = evaluator(
        model,
        material,
        loose,
        scorer=lambda prompt, answer: None if prompt == TEXTS[0] else len(answer),
        scorer_prompts=PROMPTS,
    )
    change = sum(len(new) - len(old) for old, new in zip(plain[1:], edited[1:], strict=True)) / 2
    assert skipping(candidates)[1].effect == pytest.approx(change)


def test_no_answers_are_made_where_the_budget_is_passed(tiny_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    material = material_of(model)
    evaluate = evaluator(model, material, OPTIONS, scorer=lambda *_: 1.0, scorer_prompts=PROMPTS)
    monkeypatch.setattr(Model, "generate", lambda *_, **__: pytest.fail("answered"))
    assert evaluate([random_enhancement(model, 4.0)])[0].pruned


def test_scores_that_are_no_numbers_are_refused(tiny_model: Models) -> None:
    model = tiny_model("llama")
    material = material_of(model)
    for wrong in (math.nan, math.inf, "good"):
        with pytest.raises(InputError, match="which has no place in a mean"):
            evaluator(model, material, OPTIONS, scorer=lambda *_, wrong=wrong: wrong, scorer_prompts=PROMPTS)
    with pytest.raises(InputError, match="needs prompts"):
        evaluator(model, material, OPTIONS, scorer=lambda *_: 1.0)
    nothing = evaluator(model, material, OPTIONS, scorer=lambda *_: None, scorer_prompts=PROMPTS)
    with pytest.raises(InputError, match="nothing to compare"):
        nothing([random_enhancement(model, 0.1)])


def test_one_candidate_without_numbers_does_not_end_the_search_of_all(tiny_model: Models) -> None:
    model = tiny_model("llama")
    material = material_of(model)
    evaluate = evaluator(model, material, OPTIONS)
    candidates = [random_enhancement(model, dose) for dose in (0.1, math.nan, 0.2)]
    found = evaluate(candidates)
    assert [outcome.pruned for outcome in found] == [False, True, False]
    assert found[1].damage == math.inf
    assert found[0].effect == pytest.approx(evaluate(candidates[:1])[0].effect, abs=1e-5)
    with pytest.raises(WrongModelError):
        evaluate([random_enhancement(tiny_model("llama-biased"), 0.1)])
    model.network.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        evaluator(model, material, OPTIONS)


def test_the_general_prompts_are_finished_only_for_those_that_may_fit(
    tiny_model: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    material = material_of(model)
    evaluate = evaluator(model, material, OPTIONS)
    measured: list[int] = []

    def counting(model: Model, material: Material, candidates: list[Candidate]) -> list[object]:
        measured.append(len(candidates))
        return list(measure(model, material, candidates))

    monkeypatch.setattr(module, "measure", counting)
    evaluate([random_enhancement(model, dose) for dose in (0.1, 12.0, 12.0)])
    evaluate([random_enhancement(model, 12.0)])
    assert measured == [1]
