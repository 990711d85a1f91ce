"""Planted effects are found, planted nulls are not, and every number equals an independent computation."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from burnish.artifacts.direction import Enhancement
from burnish.errors import InputError, ModelError
from burnish.evaluation import pairs
from burnish.evaluation.comparison import Row, compare, with_verdicts
from burnish.evaluation.damage import early_stop, perplexity, prose_items, refuses
from burnish.evaluation.effect import Effect, affinity, effect_of, fit_probe, shifts
from burnish.evaluation.evaluating import evaluate, statistic_changes
from burnish.evaluation.evaluation_tables import comparison_table, evaluation_table, samples_page
from burnish.evaluation.methods import at_equal_damage, random_method
from burnish.evaluation.pairs import Pair, base_answers, pair_items, user_pairs
from burnish.maths.intervals import Interval, interval
from burnish.maths.strength import CLOSE
from burnish.model.divergence import divergence, prompt_kl
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Item, score, score_prompts
from burnish.options import EvaluateOptions
from burnish.prompts import Prompt, PromptSet
from burnish.prompts.domains import load_domain
from conftest import Folders, Models, random_enhancement

TEXTS = [f"{word} the {thing}" for word in ("Tell", "Show", "Name") for thing in ("way", "sea", "oven", "moon")]
SMALL = EvaluateOptions(
    prompts=4, tokens=6, answer_tokens=8, samples=3, sample_tokens=8, random_directions=8, budget=0.01
)


def planted(model: Model, enhancement: Enhancement, tokens: int = 6) -> list[Pair]:
    """Pairs whose chosen answers are the enhanced model's and whose rejected ones are the base model's."""
    prompts = [model.tokens(t) for t in TEXTS]
    base = model.samples(prompts, tokens, seed=0)
    with model.enhanced(enhancement):
        chosen = model.samples(prompts, tokens, seed=1)
    return [Pair(Prompt.of(t), c, b) for t, c, b in zip(TEXTS, chosen, base, strict=True) if c and b]


def effect_on(model: Model, enhancement: Enhancement, pairs: list[Pair]) -> Effect:
    items = [Item(p.prompt and model.tokens(p.prompt), p.rejected) for p in pairs]
    damage = float(prompt_kl(score(model, items, [Candidate("e", enhancement)]).candidates[0]).mean())
    randoms = [random_method(enhancement.directions[0], seed) for seed in range(8)]
    scaled = [s.candidate for s in at_equal_damage(model, items, randoms, damage)]
    scores = score(model, pair_items(model, pairs), [Candidate("e", enhancement), *scaled])
    return effect_of(scores.base, scores.candidates[0], "user", shifts(scores, range(1, 9)))


def test_a_planted_effect_is_found_and_a_planted_null_is_not(tiny_model: Models) -> None:
    model = tiny_model("llama")
    enhancement = random_enhancement(model, 3.0)
    effect = effect_on(model, enhancement, planted(model, enhancement))
    assert effect.above.low > 0
    assert effect.shift.mean > 0
    other = random_enhancement(model, 3.0, seed=9)
    null = effect_on(model, other, planted(model, random_enhancement(model, 0.0)))
    assert not null.above.excludes_zero or abs(null.above.mean) < effect.above.mean / 3


def test_the_search_for_a_scale_reaches_the_budget(tiny_model: Models) -> None:
    model = tiny_model("llama")
    items = [Item(model.tokens(t), [40, 41, 42, 43]) for t in TEXTS]
    direction = random_enhancement(model, 1.0).directions[0]
    for budget in (0.001, 0.02):
        for scaled in at_equal_damage(model, items, [random_method(direction, s) for s in range(3)], budget):
            measured = score(model, items, [scaled.candidate]).candidates[0]
            assert (1 - CLOSE) * budget < 1.01 * float(prompt_kl(measured).mean()) <= 1.02 * budget


def test_a_system_prompt_is_scored_against_the_bare_prompt(tiny_model: Models) -> None:
    model = tiny_model("llama")
    bare = [Item(model.tokens(t), [40, 41, 42]) for t in TEXTS[:3]]
    same = score_prompts(model, bare, bare)
    assert max(float(s.kl.max()) for s in same.candidates[0]) < 1e-6
    prompted = [Item(model.tokens(t, "Be brief."), [40, 41, 42]) for t in TEXTS[:3]]
    scores = score_prompts(model, bare, prompted)
    assert min(float(s.kl.min()) for s in scores.candidates[0]) > 0
    alone = score(model, prompted, [])
    for one, two in zip(scores.candidates[0], alone.base, strict=True):
        torch.testing.assert_close(one.log_probability, two.log_probability, rtol=1e-4, atol=1e-4)


def test_a_probe_finds_a_planted_difference_and_reads_it_in_new_answers(tiny_model: Models) -> None:
    model = tiny_model("llama")
    pairs = [Pair(Prompt.of(t), [200 + i % 3, 201, 202], [50, 51 + i % 3, 52]) for i, t in enumerate(TEXTS)]
    probe = fit_probe(model, pairs[:8], pairs[8:])
    assert probe.accuracy == 1
    prompts = [model.tokens(t) for t in TEXTS]
    reading = affinity(model, probe, prompts, [[50, 52]] * 12, [[200, 202]] * 11 + [[]])
    assert reading.change.n == 11
    assert reading.change.low > 0.5


def test_refusals_are_read_from_the_opening() -> None:
    assert refuses("I'm sorry, but I can't help with that.")
    assert refuses("죄송하지만 도와드릴 수 없습니다.")
    assert not refuses("Sure. First, choose a quiet place and sit down.")
    assert not refuses("word " * 60 + "sorry")
    assert early_stop([[1], [1] * 8, []], 8) == pytest.approx(2 / 3)


def test_divergence_and_perplexity_summaries(tiny_model: Models) -> None:
    model = tiny_model("llama")
    items = prose_items(model, "en", 3)
    assert all(len(i.prompt) == 1 and len(i.answer) > 20 for i in items)
    scores = score(model, items, [Candidate("e", random_enhancement(model, 2.0))])
    logs = torch.cat([s.log_probability for s in scores.base])
    assert perplexity(scores.base) == pytest.approx(float(torch.exp(-logs.mean())))
    summary = divergence(scores.candidates[0])
    kl = torch.cat([s.kl for s in scores.candidates[0]])
    assert summary.kl_max == pytest.approx(float(kl.max()))
    assert summary.tokens == len(kl)


@pytest.mark.usefixtures("own_cache")
def test_base_answers_are_cached_by_everything_they_depend_on(
    tiny_model: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    prompts = PromptSet("p", tuple(Prompt.of(t) for t in TEXTS[:3]))
    first = base_answers(model, prompts, 5, seed=0)
    monkeypatch.setattr(Model, "samples", lambda *_, **__: pytest.fail("answered again"))
    monkeypatch.setattr(Model, "continuations", lambda *_, **__: pytest.fail("answered again"))
    assert base_answers(model, prompts, 5, seed=0) == first
    other = PromptSet("p", prompts.prompts[:2])
    for arguments in (
        (other, 5, None, 0),
        (prompts, 6, None, 0),
        (prompts, 5, "Be brief.", 0),
        (prompts, 5, None, 1),
        (prompts, 5, None, None),
    ):
        with pytest.raises(pytest.fail.Exception):
            base_answers(model, arguments[0], arguments[1], system=arguments[2], seed=arguments[3])
    with pytest.raises(pytest.fail.Exception):
        base_answers(tiny_model("llama-biased"), prompts, 5, seed=0)


def test_pairs_without_both_answers_and_models_without_words_are_refused(
    tiny_model: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    rows = tuple(Prompt.of(t, "Yes.", None if t == TEXTS[3] else "No.") for t in TEXTS)
    with pytest.raises(InputError, match="Row 4 of 'p' has no rejected answer"):
        user_pairs(model, PromptSet("p", rows), SMALL)
    with pytest.raises(InputError, match="3 pairs: too few"):
        user_pairs(model, PromptSet("p", rows[:3]), SMALL)
    monkeypatch.setattr(pairs, "base_answers", lambda model, prompts, *_, **__: [[]] * len(prompts))
    with pytest.raises(ModelError, match="answers with nothing"):
        pairs.made_pairs(model, load_domain("education"), SMALL, None)


def test_a_model_that_computes_no_numbers_is_refused(tiny_model: Models) -> None:
    model = tiny_model("llama", own=True)
    model.network.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        score(model, [Item(model.tokens("Hello"), [40])], [])


def test_statistics_are_paired_and_adjusted_together() -> None:
    base = ["The day was long. It rained."] * 8
    enhanced = ['"The red, cold rain," she said.'] * 8
    changes = {s.name: s for s in statistic_changes(base, enhanced, ("quoted-share",))}
    assert changes["quoted-share"].change.low > 0
    assert changes["quoted-share"].p_adjusted <= 0.2
    same = statistic_changes(base, base, ("quoted-share",))
    assert all(s.change.mean == 0 and s.p_adjusted == 1 for s in same)


def fixed(mean: float, spread: float = 0.01) -> Interval:
    return interval(mean + spread * torch.linspace(-1, 1, 20))


def test_an_effect_is_a_word_only_beyond_chance_and_beyond_random() -> None:
    def row(name: str, above: float, likelihood: float, *, null: bool = False) -> Row:
        effect = Effect("made", 20, 100, fixed(above), fixed(above), fixed(likelihood))
        return Row(name, 1.0, fixed(0.01), {"made": effect}, {}, null)

    rows = [
        row("gain", 0.3, 0.1),
        row("hollow", 0.3, -0.1),
        row("loss", -0.3, 0.1),
        row("chance", 0.0, 0.1),
        row("inside the null", 0.04, 0.1),
        row("random", 0.05, 0.0, null=True),
    ]
    verdicts = {r.method: r.verdicts["made"] for r in with_verdicts(rows)}
    assert verdicts == {
        "gain": "gain",
        "hollow": "hollow",
        "loss": "loss",
        "chance": "none",
        "inside the null": "none",
        "random": "none",
    }


@pytest.mark.parametrize("template", [True, pytest.param(False, marks=pytest.mark.full)])
def test_an_evaluation_says_everything_and_says_it_again(
    template: bool, tiny_folder: Folders, tiny_model: Models
) -> None:
    model = tiny_model("llama", template=template)
    enhancement = random_enhancement(model, 0.8)
    domain = load_domain("creative-writing")
    rows = PromptSet("own", tuple(Prompt.of(t, f"Yes, {t}.", f"No, {t}.") for t in TEXTS))
    evaluation = evaluate(model, enhancement, domain=domain, pairs=rows, options=SMALL)
    assert [e.kind for e in evaluation.effects] == ["user", "references", "made"]
    assert evaluation.damage.kl.mean > 0
    assert evaluation.damage.harmful == 22
    assert len(evaluation.samples) == 3
    again = evaluate(model, enhancement, domain=domain, pairs=rows, options=SMALL)
    assert replace(again, seconds=0.0) == replace(evaluation, seconds=0.0)
    text = evaluation_table(evaluation)
    for words in ("reference answers", "self-made pairs", "own pairs", "perplexity", "Verdict:", "seed 0"):
        assert words in text
    assert evaluation.samples[0].prompt in samples_page(evaluation)
    with pytest.raises(InputError, match="--domain NAME, --pairs FILE"):
        evaluate(model, enhancement, options=SMALL)


def test_no_enhancement_is_no_effect_and_no_damage(tiny_model: Models) -> None:
    model = tiny_model("llama")
    evaluation = evaluate(model, random_enhancement(model, 0.0), domain=load_domain("education"), options=SMALL)
    assert evaluation.damage.kl.mean < 1e-6
    assert all(abs(e.above.mean) < 1e-5 for e in evaluation.effects)
    assert evaluation.damage.perplexity_base == pytest.approx(evaluation.damage.perplexity_enhanced)


@pytest.mark.full
def test_a_comparison_scales_every_method_to_the_budget(tiny_model: Models, tmp_path: Path) -> None:
    model = tiny_model("llama")
    domain = load_domain("education")
    comparison = compare(model, domain, SMALL, enhancement=random_enhancement(model, 0.5))
    names = [row.method for row in comparison.rows]
    assert names[0] == "the given enhancement, scaled"
    assert names[-1] == "expert system prompt"
    assert sum(row.null for row in comparison.rows) == 4  # the other half of the random directions calibrates
    assert set(comparison.null) == {"references", "made"}
    assert all(set(row.verdicts) == {"references", "made"} for row in comparison.rows)
    assert [d.kl for d in comparison.doses] == sorted(d.kl for d in comparison.doses)
    text = comparison_table(comparison)
    assert "ship range" in text
    assert all(name in text for name in names)
    again = compare(model, domain, SMALL, enhancement=random_enhancement(model, 0.5))
    assert replace(again, seconds=0.0) == replace(comparison, seconds=0.0)
