"""Tuning on tiny models: planted optima, budgets, abstaining, several specialities."""

from dataclasses import replace

import pytest
import torch

from burnish.artifacts.direction import Enhancement
from burnish.errors import InputError, WrongModelError
from burnish.evaluation.pairs import Answered, Halves, Pair
from burnish.maths.statistics import unit
from burnish.mix import Mix
from burnish.model.model import Model
from burnish.model.scoring import Candidate
from burnish.options import TuneOptions
from burnish.prompts import Prompt, PromptSet
from burnish.tuning.aims import Speciality, own_domain, random_template, scored_pairs
from burnish.tuning.closed_form import Tried, at_budget, closed_form
from burnish.tuning.mixing import alike, merged
from burnish.tuning.objective import Aim, Material, damage_of, damage_on, measure
from burnish.tuning.tuned_tables import tuned_summary, tuned_table
from burnish.tuning.tuning import settle, tune
from conftest import Models, fake_direction, random_enhancement

WORDS = [
    f"{a} the {b}" for a in ("Tell", "Show", "Name", "Sing") for b in ("way", "sea", "oven", "moon", "door", "tree")
]
SMALL = TuneOptions(
    prompts=4,
    tokens=6,
    answer_tokens=8,
    random_directions=3,
    budget=0.01,
    movement=0.2,
    perplexity_floor=2.0,
    repetition_floor=1.0,
)


def material(model: Model, plan: Enhancement, *, effect: bool) -> Material:
    """Answers sampled under the plan against the base model's own; without effect both are the base model's."""
    prompts = [model.tokens(t) for t in WORDS]
    base = model.samples(prompts, 8, seed=0)
    with model.enhanced(plan if effect else plan.scaled(0.0)):
        chosen = model.samples(prompts, 8, seed=1)
    pairs = [Pair(Prompt.of(t), c, b) for t, c, b in zip(WORDS, chosen, base, strict=True) if c and b]
    half = len(pairs) // 2
    rows = [Answered(Prompt.of(f"What is {t}?"), a) for t, a in zip(WORDS, base, strict=True) if a]
    general = (tuple(rows[:6]), tuple(rows[6:12]))
    return Material(
        (Aim("planted", Halves("references", tuple(pairs[:half]), tuple(pairs[half:])), 1.0),),
        general,
        general,
        general,
    )


def nulls(plan: Enhancement) -> list[Enhancement]:
    return [random_template(plan, i) for i in range(3)]


def test_a_planted_optimum_is_found_within_the_budget(tiny_model: Models) -> None:
    model = tiny_model("llama")
    planted = random_enhancement(model, [1.5, -0.8, 2.0])
    given = material(model, planted, effect=True)
    options = replace(SMALL, budget=0.05, movement=1.0, steps=3)
    result = closed_form(model, planted.scaled(0.0), nulls(planted), given, options)
    assert result.best is not None
    assert result.best.point.effect > 0.3 * measure(model, given, [Candidate("planted", planted)])[0].effect
    assert result.best.point.load(options) <= 1.05
    signs = torch.sign(result.best.enhancement.gains[:, 0])
    strongest = int(result.best.enhancement.gains.abs().argmax())
    assert signs[strongest] == torch.sign(planted.gains[strongest, 0])
    assert all(result.best.point.effect > point.effect for point in result.null)


@pytest.mark.parametrize("shape", ["free", "smooth", "single", "non-negative"])
def test_shapes_keep_their_form(shape: str, tiny_model: Models) -> None:
    model = tiny_model("llama")
    planted = random_enhancement(model, 1.0, rank=2)
    options = replace(SMALL, shape=shape, window="1..2", steps=1)
    result = closed_form(model, planted, nulls(planted), material(model, planted, effect=True), options)
    for tried in result.tried:
        gains = tried.enhancement.gains
        assert not gains[0].any()
        if shape == "single":
            torch.testing.assert_close(gains[1], gains[2])
        if shape == "non-negative":
            assert float(gains.min()) >= 0


@pytest.mark.parametrize("budget", [0.002, 0.03])
def test_the_budget_is_held_within_five_percent(budget: float, tiny_model: Models) -> None:
    model = tiny_model("llama")
    plan = random_enhancement(model, 0.3)
    given = material(model, plan, effect=True)
    options = replace(SMALL, budget=budget, movement=10.0)
    scaled = at_budget(model, [plan, random_enhancement(model, 3.0, seed=8)], given, options)
    for point in damage_of(model, given, [Candidate("s", s) for s in scaled]):
        assert point.load(options) == pytest.approx(1, abs=0.05)


def test_chosen_gains_keep_the_budget_on_every_everyday_prompt(tiny_model: Models) -> None:
    model = tiny_model("llama")
    plan = random_enhancement(model, 0.5)
    given = material(model, plan, effect=True)
    options = replace(SMALL, budget=0.5 * float(damage_on(model, given.everyday[0], [plan]).mean()))
    point = measure(model, given, [Candidate("p", plan)])[0]
    settled, bounds = settle(model, Tried(plan, point), given, "en", options)
    assert settled is not None
    damage = float(damage_on(model, given.everyday[0], [settled.enhancement]).mean())
    assert 0.9 * options.budget < damage <= options.budget
    assert bounds.load(options) <= 1
    assert settled.point.kl == pytest.approx(
        damage_of(model, given, [Candidate("p", settled.enhancement)])[0].kl, rel=1e-3
    )
    same = replace(SMALL, budget=100.0, perplexity_floor=100.0, repetition_floor=1.0)
    assert settle(model, Tried(plan, point), given, "en", same)[0] == Tried(plan, point)


def test_damage_alone_equals_the_damage_measured_with_effects(tiny_model: Models) -> None:
    model = tiny_model("llama")
    plan = random_enhancement(model, 0.5)
    given = material(model, plan, effect=True)
    alone, both = damage_of(model, given, [Candidate("p", plan)])[0], measure(model, given, [Candidate("p", plan)])[0]
    assert alone.kl == pytest.approx(both.kl, rel=1e-4)
    assert alone.special_kl == pytest.approx(both.special_kl, rel=1e-4)
    assert both.effect == pytest.approx(float(both.rows.mean()), abs=1e-9)
    assert both.effect == pytest.approx(both.likelihood[0])


def enhance_set(count: int = 24) -> PromptSet:
    return PromptSet("stories", tuple(Prompt.of(t) for t in (WORDS * 2)[:count]))


def test_a_null_direction_makes_it_abstain(tiny_model: Models) -> None:
    model = tiny_model("llama")
    abstained = 0
    for seed in range(4):
        vectors = unit(
            torch.randn(model.anatomy.layers, model.anatomy.hidden_size, generator=torch.Generator().manual_seed(seed))
        )
        domain = own_domain(enhance_set(), expert="Tell stories.")
        tuned = tune(
            model, fake_direction(model, vectors), domain=[Speciality(domain)], options=replace(SMALL, seed=seed)
        )
        abstained += tuned.abstained
        if tuned.abstained:
            assert tuned.reason
            assert not tuned.enhancement.gains.any()
            assert "Left alone" in tuned_table(tuned)
    assert abstained >= 3


@pytest.mark.parametrize(
    "domain", [pytest.param("education", marks=pytest.mark.full), "0.6 creative-writing - 0.2 education"]
)
def test_domains_and_mixes_are_tuned_and_say_it_again(domain: str, tiny_model: Models) -> None:
    model = tiny_model("llama")
    tuned = tune(model, domain=domain, options=replace(SMALL, steps=1))
    mix = Mix.parse(domain)
    assert tuned.enhancement.rank == 2 * len(mix.terms)
    assert [weight for _, _, weight, _, _ in tuned.aims] == [t.weight for t in mix.terms for _ in range(2)]
    if len(mix.terms) == 1:
        again = tune(model, domain=mix, options=replace(SMALL, steps=1))
        assert {**tuned_summary(again), "seconds": 0} == {**tuned_summary(tuned), "seconds": 0}
    assert "Effect on the tuning half" in tuned_table(tuned)
    if not tuned.abstained:
        assert tuned.reported is not None
        assert len(tuned.frontier) == 5
        chosen = next(p for p in tuned.frontier if p.multiple == 1)
        assert chosen.kl == pytest.approx(tuned.reported.kl.mean, abs=1e-9)
        assert (tuned.interference is None) == (len(mix.terms) == 1)


def test_wrong_calls_are_refused(tiny_model: Models) -> None:
    model, other = tiny_model("llama"), tiny_model("gpt2")
    with pytest.raises(InputError, match="no domain"):
        tune(model, domain="poetry")
    with pytest.raises(InputError, match="two languages"):
        tune(model, domain="creative-writing + creative-writing-ko")
    with pytest.raises(InputError, match="negative"):
        tune(model, domain="-education")
    with pytest.raises(WrongModelError):
        tune(model, random_enhancement(other, 1.0).directions[0], domain="education")
    with pytest.raises(InputError, match="16 or more"):
        own_domain(enhance_set(12))


def test_a_scorer_is_an_aim_before_the_others(tiny_model: Models) -> None:
    model = tiny_model("llama")
    tuned = tune(model, domain="education", scorer=lambda _, answer: len(answer), options=replace(SMALL, steps=1))
    assert [kind for _, kind, *_ in tuned.aims] == ["user", "references", "made"]


def test_a_scorer_ranks_samples_into_pairs(tiny_model: Models) -> None:
    model = tiny_model("llama")
    prompts = enhance_set(20)
    pairs = scored_pairs(model, prompts, lambda prompt, answer: float(len(answer)), SMALL)
    assert pairs.kind == "user"
    for pair in pairs.tune + pairs.report:
        lengths = [len(model.tokenizer.decode(a, skip_special_tokens=True)) for a in (pair.chosen, pair.rejected)]
        assert lengths[0] > lengths[1]
    with pytest.raises(InputError, match="not a number"):
        scored_pairs(model, prompts, lambda prompt, answer: float("nan"), SMALL)
    with pytest.raises(InputError, match="too few"):
        scored_pairs(model, prompts, lambda prompt, answer: 1.0, SMALL)


def test_alike_directions_are_reported_and_joined_only_when_told(tiny_model: Models) -> None:
    model = tiny_model("llama")
    one, two = random_enhancement(model, 1.0), random_enhancement(model, 1.0, seed=5)
    near = unit(one.vectors + 0.1 * two.vectors)
    plan = Enhancement.of([fake_direction(model, v[:, 0]) for v in (one.vectors, near, two.vectors)])
    plan = replace(plan, vectors=torch.cat([one.vectors, near, two.vectors], 1))
    (pair,) = alike(plan)
    assert (pair.first, pair.second) == (0, 1)
    assert pair.cosine > 0.98
    joined, owners = merged(plan, ["a", "b", "c"], 0.9)
    assert owners == ["a + b", "c"]
    assert joined.gains.shape == (model.anatomy.layers, 2)
    torch.testing.assert_close(joined.vectors.norm(dim=-1), torch.ones(model.anatomy.layers, 2))
    apart, _ = merged(plan, ["a", "b", "c"], 0.999)
    assert apart.gains.shape[1] == 3


def test_several_directions_act_in_any_order(tiny_model: Models) -> None:
    model = tiny_model("llama")
    plan = random_enhancement(model, 0.7, rank=3)
    plan = replace(plan, gains=plan.gains * torch.tensor([1.0, -0.5, 0.2]))
    turned = replace(plan, vectors=plan.vectors[:, [2, 0, 1]], gains=plan.gains[:, [2, 0, 1]])
    given = material(model, plan, effect=True)
    one, other = measure(model, given, [Candidate("a", plan), Candidate("b", turned)])
    assert one.effect == pytest.approx(other.effect, abs=1e-5)
    assert one.kl == pytest.approx(other.kl, rel=1e-3)
