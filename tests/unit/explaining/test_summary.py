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
from burnish.maths.intervals import Interval
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
    """The summary in reading order."""
    summary = summarise(facts)
    return "\n".join([summary.verdict, *(s for card in summary.cards for s in card.sentences), *summary.caveats])


def learned(removed: float, damage: float, *, budget: float = 0.03) -> Learning:
    likelihood = interval(0.1, n=24)
    return Learning(
        LearnOptions(budget=budget),
        Divergence(48, 1000, interval(damage, 0.002, n=48), 0.08, 0.04, 0.9, 0.03),
        (Taught("education", 24, 0.3, interval(removed, n=24), likelihood, 0.2, None, None),),
    )


def evaluated(*effects: Effect, learning: Learning | None = None, **damage: Any) -> Explanation:
    return full(learning=learning, evaluation=evaluation(*effects, **damage))


def costly(kl: float) -> Interval:
    return interval(kl, 0.001, 24)


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
    text = words_of(full(learning=learned(0.4, 0.02, budget=0.01)))
    assert "moved by 0.0102 [0.0090, 0.0114] nats per token on average (the budget is 0.01)" in text
    assert "95th percentile of their tokens is 0.041" in text
    assert "5.2 % to 5.5 %" in text and "24.31 to 24.62 (+1.3 %)" in text
    assert "Of 20 harmful requests the base model declined 17, the enhanced one 16; 16 refusals were kept." in text


def small(**changes: Any) -> Explanation:
    return minimal(directions=(direction("small", "small", 1, **changes),))


@pytest.mark.parametrize(
    ("facts", "ships", "words"),
    [
        (minimal(), None, "Whether it ships cannot be said: the effect and the damage were not measured."),
        (minimal(check=check()), None, "answers visibly change above 0.05"),
        (minimal(check=check()), None, "the effect was not measured"),
        (minimal(check=check()), None, "Perplexity and refusals were not measured."),
        (minimal(gains=()), False, "every gain is zero, so nothing is edited."),
        (evaluated(learning=learned(0.4, 0.02)), True, "no falling likelihood, and damage within the budget."),
        (evaluated(learning=learned(0.4, 0.02, budget=0.01)), True, "within 5 % of the budget"),
        (
            evaluated(kl=costly(0.02), learning=learned(0.4, 0.02, budget=0.01)),
            False,
            "0.0200 nats per token is beyond 0.01",
        ),
        (evaluated(kl=costly(0.04)), True, "damage within the bound of visible change"),
        (evaluated(kl=costly(0.06)), False, "0.0600 nats per token is beyond 0.05"),
        (evaluated(effect("references", 0.03, 0.01)), False, "no effect measured, the interval contains zero"),
        (
            evaluated(effect("made", 0.12, -0.08)),
            False,
            "hollow, the likelihood of good answers fell by 0.0800 nats per token",
        ),
        (evaluated(effect("made", 0.12, -0.01)), True, "good answers did not rise: -0.010 [-0.030, +0.010]"),
        (evaluated(effect("references", -0.2, -0.2)), False, "a loss, the effect is below that of random directions"),
        (small(found=False), None, "The direction small is not above its null"),
        (small(quality=quality(1, 30, share=0.7)), None, "70 % of its squared length is in the four largest"),
        (small(held_out=8), None, "Small sample: the direction small was tried on 8 held-out prompts only"),
        (
            evaluated(effect("references", 0.2, 0.1, pairs=6)),
            True,
            "Small sample: the effect was measured on 6 reference answers",
        ),
        (evaluated(prompts=5), True, "Small sample: the damage was measured on 5 prompts"),
        (evaluated(repetition_enhanced=0.2), True, "Enhanced answers repeat themselves more than the base model's."),
        (evaluated(perplexity_enhanced=30.0), True, "Neutral prose became more than 5 % more perplexing."),
        (evaluated(refusals_kept=14), True, "3 refusals of harmful requests were lost."),
        (learnt(check=check()), None, "the effect was not measured"),
        (learnt(learning=learned(0.01, 0.02)), False, "education: the distance to the teacher did not surely shrink"),
        (learnt(learning=learned(0.4, 0.05)), False, "0.0500 nats per token is beyond 0.03"),
        (
            learnt(learning=learned(0.4, 0.03)),
            True,
            "surely nearer to the teacher on held-out prompts, and damage within the budget",
        ),
    ],
)
def test_what_speaks_for_it_and_against_it_is_said(facts: Explanation, ships: bool | None, words: str) -> None:
    assert summarise(facts).ships is ships
    assert words in words_of(facts)


def test_caveats_are_only_where_they_apply() -> None:
    assert summarise(minimal()).caveats == ()
    assert summarise(evaluated(refusals_kept=17)).caveats == ()


def test_the_evaluation_comes_before_learning_and_learning_before_the_check() -> None:
    learning = learned(0.4, 0.02)
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


def test_learnt_directions_are_told_together_with_their_teacher_and_what_was_measured_then() -> None:
    facts = learnt(learning=learned(0.4, 0.02), check=check())
    text = words_of(facts)
    assert "along 3 directions a layer in" in text
    assert text.count("education: 3 directions a layer learnt from expert prompt 5f3a, on 95 questions.") == 1
    assert "of the distance to the teacher is gone on 24 held-out prompts" in text
    assert "0.0200 [0.0180, 0.0220] nats per token on average (the budget is 0.03)" in text


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
