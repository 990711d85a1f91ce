"""Every sentence of the summary is true of the numbers, and every caveat appears exactly where it applies."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from burnish.cli.explain import read_numbers
from burnish.evaluation.effect import Effect
from burnish.explaining.facts import Explanation
from burnish.explaining.summary import cost_of, effects_of, summarise
from burnish.learning.report import Learning, Taught
from burnish.model.divergence import Divergence
from burnish.options import LearnOptions
from explaining_example import (
    FEW_LAYERS,
    check,
    direction,
    effect,
    evaluation,
    full,
    interval,
    learnt,
    minimal,
    quality,
)


def words_of(facts: Explanation) -> str:
    return "\n".join(summarise(facts).sentences)


def evaluated(*effects: Effect, learning: Learning | None = None, **damage: Any) -> Explanation:
    return full(learning=learning, evaluation=evaluation(*effects, **damage))


def test_what_was_enhanced_names_layers_gains_and_prompts() -> None:
    text = words_of(minimal())
    assert (
        f"enhance.txt was strengthened in smollm2-135m (bfloat16) along one direction in {FEW_LAYERS} of {FEW_LAYERS} layers"
        in text
    )
    assert "with a gain of +0.50." in text
    assert "95 specialised and 95 everyday prompts, layer 6 chosen" in text


def test_how_sure_gives_auroc_against_its_null_and_the_effect_with_its_interval() -> None:
    text = words_of(full())
    best = full().directions[0].quality[18]
    assert f"AUROC 0.980 (shuffled labels: {best.null_auroc:.3f})" in text
    assert "cosine 0.92 with itself" in text
    assert "Effect on 24 reference answers: +0.168 [+0.128, +0.208] nats per token above random" in text


def test_what_it_cost_gives_kl_budget_percentile_repetition_perplexity_and_refusals() -> None:
    text = words_of(full(learning=measured(0.4, 0.02, budget=0.01)))
    assert "moved by 0.0102 [0.0090, 0.0114] nats per token on average (the budget is 0.01)" in text
    assert "95th percentile of their tokens is 0.041" in text
    assert "5.2 % to 5.5 %" in text and "24.31 to 24.62 (+1.3 %)" in text
    assert "Of 20 harmful requests the base model declined 17, the enhanced one 16; 16 refusals were kept." in text


def test_nothing_measured_says_so_and_gives_no_verdict() -> None:
    summary = summarise(minimal())
    assert summary.ships is None
    assert summary.verdict == "Whether it ships cannot be said: the effect and the damage were not measured."
    assert "not measured" in summary.cards[2].unit
    assert not summary.caveats


def test_a_check_alone_leaves_the_effect_open() -> None:
    summary = summarise(minimal(check=check()))
    assert summary.ships is None
    assert "the effect was not measured" in summary.verdict
    text = "\n".join(summary.sentences)
    assert "Perplexity and refusals were not measured." in text
    assert "answers visibly change above 0.05" in text


def test_a_gain_within_the_budget_ships_without_caveats() -> None:
    summary = summarise(
        evaluated(kl=interval(0.009, 0.001, 24), refused_enhanced=17, refusals_kept=17, learning=measured(0.4, 0.02))
    )
    assert summary.ships is True
    assert summary.verdict.endswith("damage within the budget.")
    assert summary.caveats == ()


def test_a_little_beyond_the_budget_ships_and_says_by_how_much() -> None:
    summary = summarise(full(learning=measured(0.4, 0.02, budget=0.01)))
    assert summary.ships is True and "within 5 % of the budget" in summary.verdict
    assert "The damage is beyond the budget: 0.0102 against 0.01 nats per token, 2 % more." in summary.caveats


def test_damage_beyond_the_budget_does_not_ship() -> None:
    summary = summarise(evaluated(kl=interval(0.02, 0.001, 24), learning=measured(0.4, 0.02, budget=0.01)))
    assert summary.ships is False and "0.0200 nats per token is beyond 0.01" in summary.verdict
    assert any("100 % more" in c for c in summary.caveats)


def test_without_a_budget_the_bound_of_visible_change_counts() -> None:
    assert summarise(evaluated(kl=interval(0.04, 0.001, 24))).ships is True
    beyond = summarise(evaluated(kl=interval(0.06, 0.001, 24)))
    assert beyond.ships is False
    assert any("the bound above which answers visibly change" in c for c in beyond.caveats)


def test_an_interval_with_zero_is_no_effect_measured() -> None:
    summary = summarise(evaluated(effect("references", 0.03, 0.01)))
    assert summary.ships is False
    assert "no effect measured, the interval contains zero" in summary.cards[1].sentences[-1]
    assert any(c.startswith("No effect measured on reference answers") for c in summary.caveats)


def test_a_falling_likelihood_is_hollow() -> None:
    summary = summarise(evaluated(effect("made", 0.12, -0.08)))
    assert summary.ships is False and "hollow" in summary.verdict
    assert any("likelihood of good answers fell by 0.0800 nats per token" in c for c in summary.caveats)


def test_a_likelihood_that_may_have_fallen_is_mentioned() -> None:
    summary = summarise(evaluated(effect("made", 0.12, -0.01)))
    assert summary.ships is True
    assert any("did not rise: -0.010 [-0.030, +0.010]" in c for c in summary.caveats)


def test_an_effect_below_random_is_a_loss() -> None:
    summary = summarise(evaluated(effect("references", -0.2, -0.2)))
    assert summary.ships is False
    assert any("below that of random directions" in c for c in summary.caveats)


def test_a_direction_at_its_null_may_be_noise() -> None:
    facts = minimal(directions=(direction("weak", "weak", 1, found=False),))
    assert any(c.startswith("The direction weak is not above its null") for c in summarise(facts).caveats)


def test_a_few_coordinates_that_carry_a_direction_are_named() -> None:
    facts = minimal(directions=(direction("spiky", "spiky", 1, quality=quality(1, 30, share=0.7)),))
    assert any("70 % of its squared length is in the four largest" in c for c in summarise(facts).caveats)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (minimal(directions=(direction("d", "d", 1, held_out=8),)), "8 held-out prompts only"),
        (evaluated(effect("references", 0.2, 0.1, pairs=6)), "measured on 6 reference answers"),
        (evaluated(prompts=5), "damage was measured on 5 prompts"),
    ],
)
def test_small_samples_are_named(facts: Explanation, words: str) -> None:
    assert any(c.startswith("Small sample") and words in c for c in summarise(facts).caveats)


def test_repetition_perplexity_and_lost_refusals_are_caveats() -> None:
    caveats = summarise(evaluated(repetition_enhanced=0.2, perplexity_enhanced=30.0, refusals_kept=14)).caveats
    assert "Enhanced answers repeat themselves more than the base model's." in caveats
    assert "Neutral prose became more than 5 % more perplexing." in caveats
    assert "3 refusals of harmful requests were lost." in caveats


def test_zero_gains_do_not_ship() -> None:
    assert summarise(minimal(gains=())).ships is False


def test_the_evaluation_comes_before_learning_and_learning_before_the_check() -> None:
    learning = measured(0.4, 0.02)
    listed = (full(learning=learning), full(evaluation=None, learning=learning), full(evaluation=None), minimal())
    costs = [cost_of(facts) for facts in listed]
    assert [None if c is None else round(c.kl, 4) for c in costs] == [0.0102, 0.02, 0.0104, None]
    assert costs[1] is not None and costs[1].interval is not None
    assert costs[2] is not None and costs[2].interval is None
    assert [name for name, _ in effects_of(full())] == ["reference answers", "self-made pairs"]
    assert effects_of(full(evaluation=None)) == []


def test_many_directions_share_one_sentence() -> None:
    many = tuple(direction(f"domain {i}", f"domain {i}", i) for i in range(6))
    text = words_of(full(directions=many))
    assert "The directions separate their held-out prompts with AUROC 0.980 to 0.980" in text
    assert "Directions: domain 0, domain 1," in text


def measured(removed: float, damage: float, *, budget: float = 0.03) -> Learning:
    likelihood = interval(0.1, n=24)
    return Learning(
        LearnOptions(budget=budget),
        Divergence(48, 1000, interval(damage, 0.002, n=48), 0.08, 0.04, 0.9, 0.03),
        (Taught("education", 24, 0.3, interval(removed, n=24), likelihood, 0.2, None, None),),
    )


def test_learnt_directions_are_told_together_with_their_teacher_and_what_was_measured_then() -> None:
    facts = learnt(learning=measured(0.4, 0.02), check=check())
    text = words_of(facts)
    assert "along 3 directions a layer in" in text
    assert text.count("education: 3 directions a layer learnt from expert prompt 5f3a, on 95 questions.") == 1
    assert "of the distance to the teacher is gone on 24 held-out prompts" in text
    assert "0.0200 [0.0180, 0.0220] nats per token on average (the budget is 0.03)" in text
    assert summarise(facts).ships


@pytest.mark.parametrize(("removed", "damage", "ships"), [(0.01, 0.02, False), (0.4, 0.05, False), (0.4, 0.03, True)])
def test_learnt_directions_ship_with_a_sure_effect_within_their_budget(
    removed: float, damage: float, ships: bool
) -> None:
    assert summarise(learnt(learning=measured(removed, damage))).ships is ships
    assert summarise(learnt(check=check())).ships is None


def test_names_of_files_cannot_move_the_cursor() -> None:
    facts = minimal(directions=(replace(minimal().directions[0], name="a\x1b[2Jb\u202e"),), title="x\x07\ny")
    text = words_of(facts)
    assert "\x1b" not in text and "\u202e" not in text and "\x07" not in text
    assert "x\u2407 y was strengthened" in text


def test_numbers_read_back_from_json_say_the_same(tmp_path: Path) -> None:
    facts = full()
    assert facts.check is not None and facts.evaluation is not None
    folder, numbers = tmp_path / "out", tmp_path / "evaluation.json"
    folder.mkdir()
    (folder / "burnish.json").write_text(json.dumps({"check": facts.check.as_dict(), "gains": []}))
    numbers.write_text(json.dumps({"evaluation": asdict(facts.evaluation)}))
    measured = read_numbers(folder, numbers, scaled=False)
    assert {k: v for k, v in measured.items() if k != "realised"} == {
        k: getattr(facts, k) for k in ("check", "evaluation")
    }
