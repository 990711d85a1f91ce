"""Personal profiles on tiny models: features, doses, budgets and comparisons."""

from dataclasses import replace

import pytest
import torch

from burnish.artifacts.direction import Direction
from burnish.errors import InputError, ModelError, WrongModelError
from burnish.evaluation.pairs import answered_items, damage_prompts, greedy_answers
from burnish.maths.statistics import unit
from burnish.model.divergence import prompt_kl
from burnish.model.live import live_edit
from burnish.model.model import Model
from burnish.model.scoring import Candidate, score
from burnish.options import EvaluateOptions
from burnish.personal import enhancing
from burnish.personal.choice_update import relearned
from burnish.personal.enhancing import dose_gains, fitting, plan_of, scaling
from burnish.personal.features import answer_means, answered, coordinates, everyday_answers, features_of, units_of
from burnish.personal.pair_proposal import choices_of, compare, known_units
from burnish.personal.profile import Coefficient, Profile
from burnish.prompts import Prompt
from burnish.prompts.domains import load_general
from burnish.steps import finish
from conftest import Models
from serving_example import named_directions, within_budget

NAMES = ["education", "formal-casual", "long-short"]
ROWS = [(Prompt.of(f"Say {i}"), f"answer {'!' * i} number {i * i}") for i in range(12)]


@pytest.fixture(autouse=True)
def small_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burnish.personal.features.EVERYDAY", EvaluateOptions(prompts=12, tokens=12))
    monkeypatch.setattr("burnish.personal.enhancing.MEASURED", EvaluateOptions(prompts=8, tokens=8))


def named(model: Model, site: str = "residual", seed: int = 0) -> dict[str, Direction]:
    return named_directions(model, site, seed, NAMES)


def taste(**values: float) -> Profile:
    coefficients = {name.replace("_", "-"): Coefficient(value, 0.1, "choices") for name, value in values.items()}
    return Profile("1", "mine", coefficients=coefficients, budget=0.01)


def test_coordinates_count_what_two_directions_share_once() -> None:
    one, two = torch.eye(4)[0], unit(torch.tensor([0.9, 0.4, 0.0, 0.0]))
    states = 3 * one + torch.tensor([[0.0, 0.0, 5.0, 0.0]])
    read = coordinates(states, torch.stack([one, two]))
    torch.testing.assert_close(read, torch.tensor([[3.0, 0.0]]).double(), atol=0.2, rtol=0)
    nearly = unit(torch.tensor([1.0, 1e-6, 0.0, 0.0]))
    assert float(coordinates(states, torch.stack([one, nearly])).abs().max()) < 4


def test_features_are_the_mean_hidden_state_over_the_answer_in_spreads_of_everyday_answers(tiny_model: Models) -> None:
    model = tiny_model("llama")
    reading = named(model)
    units = units_of(model, reading, "en")
    everyday = features_of(model, reading, units, everyday_answers(model, "en"))
    spreads = torch.tensor([list(f.values()) for f in everyday]).std(0)
    torch.testing.assert_close(spreads, torch.ones(len(NAMES)))
    rows = answered(model, ROWS[:1])
    prompt, answer = model.tokens(ROWS[0][0]), rows[0].answer
    with torch.inference_mode():
        states = model.network(torch.tensor([prompt + answer]), output_hidden_states=True).hidden_states
    layer = reading[NAMES[0]].layer
    mean = states[layer + 1][0, len(prompt) :].mean(0)
    vectors = torch.stack([d.vectors[layer] for d in reading.values()])
    expected = coordinates(mean[None], vectors)[0] / torch.tensor(list(units.spread.values())).double()
    features = features_of(model, reading, units, rows)[0]
    torch.testing.assert_close(torch.tensor(list(features.values())).double(), expected, atol=1e-4, rtol=1e-4)


def test_units_of_another_model_are_refused_and_measured_anew(tiny_model: Models) -> None:
    model = tiny_model("llama")
    reading = named(model)
    units = units_of(model, reading, "en")
    foreign = replace(units, fingerprint="another")
    with pytest.raises(InputError, match="own units"):
        features_of(model, reading, foreign, answered(model, ROWS))
    assert known_units(model, replace(taste(), units=units), reading) is units
    assert known_units(model, replace(taste(), units=foreign), reading) == units
    with pytest.raises(InputError, match="is empty"):
        answered(model, [(Prompt.of("Say"), "")])


def test_the_same_contrast_twice_gives_the_same_choices(tiny_model: Models) -> None:
    model = tiny_model("llama")
    reading = named(model)
    units = units_of(model, reading, "en")
    pairs = [Prompt(p.messages, text, text[::-1]) for p, text in ROWS]
    one, two = (choices_of(model, reading, units, pairs) for _ in range(2))
    assert one == two
    assert one[0].text == ("Say 0", ROWS[0][1], ROWS[0][1][::-1])
    assert set(relearned(taste(), one).coefficients) == set(NAMES)


def test_a_dose_is_the_nearest_gain_to_adding_a_spread_to_every_write() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = unit(torch.randn(2, 3, 16, generator=generator))
    writes = torch.randn(50, 2, 16, generator=generator) + 0.7 * torch.randn(1, 2, 16, generator=generator)
    doses = torch.tensor([0.5, -1.0, 0.0])
    gains = dose_gains(writes, vectors, doses)
    along = torch.einsum("nlh,lkh->nlk", writes.double(), torch.linalg.pinv(vectors.double().transpose(1, 2)))
    target = doses * along.std(0)

    def off(table: torch.Tensor) -> torch.Tensor:
        return (table * along - target).square().mean(0)

    for nudge in (-0.01, 0.01):
        assert bool((off(gains) <= off(gains + nudge)).all())
    assert not gains[:, 2].any()
    moved = (gains * along).mean(0)  # every layer's mean write moves towards the dose
    assert bool((moved[:, 0] > 0).all() & (moved[:, 1] < 0).all())
    torch.testing.assert_close(dose_gains(writes, vectors, -doses), -gains)
    assert float(dose_gains(writes, vectors, torch.tensor([0.0, -40.0, 40.0])).min()) >= -1


def test_the_live_dose_moves_what_attention_writes_on_everyday_answers(tiny_model: Models) -> None:
    model = tiny_model("llama")
    directions = named(model, "attention")
    rows = everyday_answers(model, "en")
    before = answer_means(model, rows, site="attention")[:, 0]
    for value in (1.0, -1.0):
        plan = plan_of(model, taste(education=value), directions)
        with live_edit(model.network, model.anatomy, plan):
            after = answer_means(model, rows, site="attention")[:, 0]
        basis = torch.stack([d.vectors[0] for d in directions.values()], 1)
        change = (torch.linalg.pinv(basis) @ (after - before).mean(0)).tolist()
        assert change[0] * value > 0
        assert change[1:] == pytest.approx([0, 0], abs=1e-5)


@pytest.mark.parametrize("dose", [0.3, 30.0])
def test_both_halves_of_the_everyday_prompts_keep_the_budget_which_is_used(dose: float, tiny_model: Models) -> None:
    model = tiny_model("llama")
    directions = named(model, "attention")
    profile = replace(taste(education=dose, long_short=-dose), budget=1e-3)
    enhancement = within_budget(model, profile, directions)
    strengths = [Candidate("damage", enhancement), Candidate("damage", enhancement.scaled(1.2))]
    damages = []
    for prompts in damage_prompts(load_general("en"), enhancing.MEASURED):
        items = answered_items(model, greedy_answers(model, prompts, enhancing.MEASURED, None))
        damages.append([float(prompt_kl(each).mean()) for each in score(model, items, strengths).candidates])
    damage, beyond = (max(half) for half in zip(*damages, strict=True))
    assert damage <= profile.budget
    if dose > 1:
        assert beyond > profile.budget
    else:
        torch.testing.assert_close(enhancement.gains, plan_of(model, profile, directions).gains)


def test_several_plans_are_scaled_as_each_alone(tiny_model: Models) -> None:
    model = tiny_model("llama")
    directions = named(model, "attention")
    plans = [plan_of(model, taste(education=d), directions) for d in (0.01, 5.0, -5.0)]
    together = finish(scaling(model, plans, 1e-3, "en"))
    assert together == pytest.approx([finish(scaling(model, [p], 1e-3, "en"))[0] for p in plans], rel=1e-3)
    assert together[0] == 1.0


def test_a_scale_is_measured_once_a_model_and_anew_for_another_plan_or_budget(
    tiny_model: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    directions, elsewhere = named(model, "attention"), named(model, "attention", seed=3)
    profile = replace(taste(education=20.0), budget=1e-2)
    plan, other = (plan_of(model, profile, each) for each in (directions, elsewhere))
    measured = finish(fitting(model, profile, plan))
    assert list(measured.scales) == [model.fingerprint]
    smaller = finish(fitting(model, replace(measured, budget=1e-4), plan))
    assert smaller.scales == finish(fitting(model, replace(profile, budget=1e-4), plan)).scales != measured.scales
    assert finish(fitting(model, measured, other)) == finish(fitting(model, profile, other)) != measured
    monkeypatch.delattr("burnish.personal.enhancing.scaling")
    assert finish(fitting(model, measured, plan)) is measured


def test_a_damage_that_is_not_a_number_is_no_damage_within_the_budget(tiny_model: Models) -> None:
    model = tiny_model("llama")
    plan = plan_of(model, taste(education=1.0), named(model, "attention"))
    with pytest.raises(ModelError, match="not finite"):
        finish(scaling(model, [plan.scaled(float("nan"))], 1e-3, "en"))


def test_few_everyday_answers_are_no_measure(tiny_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    monkeypatch.setattr("burnish.personal.features.EVERYDAY", EvaluateOptions(prompts=7, tokens=4))
    for use in (
        lambda: units_of(model, named(model), "en"),
        lambda: plan_of(model, taste(education=1.0), named(model, "attention")),
    ):
        with pytest.raises(ModelError, match="answers only"):
            use()


def test_zero_coefficients_and_directions_that_are_not_used_edit_nothing(tiny_model: Models) -> None:
    model = tiny_model("llama")
    directions = named(model, "attention")
    alone = plan_of(model, taste(education=1.0), {"education": directions["education"]})
    among = plan_of(model, taste(education=1.0, long_short=0.0), directions)
    torch.testing.assert_close(among.gains, alone.gains)
    assert among.rank == 1
    for nothing, known in ((taste(), directions), (taste(education=0.0), directions), (taste(), {})):
        with pytest.raises(InputError, match="says nothing yet"):
            plan_of(model, nothing, known)


def test_wrong_directions_are_refused(tiny_model: Models) -> None:
    model, other = tiny_model("llama"), tiny_model("gpt2")
    directions = named(model, "attention")
    with pytest.raises(InputError, match="long-short are missing"):
        plan_of(model, taste(long_short=1.0), {"education": directions["education"]})
    with pytest.raises(WrongModelError):
        plan_of(other, taste(education=1.0), directions)


def test_a_comparison_offers_two_answers_and_becomes_a_choice(tiny_model: Models) -> None:
    model = tiny_model("llama")
    reading, editing = named(model), named(model, "attention")
    units = units_of(model, reading, "en")
    given = {"reading": reading, "units": units, "editing": editing}
    comparison = compare(model, taste(), [], "Sing", tokens=12, **given)  # type: ignore[arg-type]
    assert comparison == compare(model, taste(), [], "Sing", tokens=12, **given)  # type: ignore[arg-type]
    assert comparison.answers[0] != comparison.answers[1]
    assert comparison.information > 0
    rows = answered(model, [(Prompt.of("Sing"), answer) for answer in comparison.answers])
    for features, again in zip(comparison.features, features_of(model, reading, units, rows), strict=True):
        assert features == pytest.approx(again)
    choice = comparison.chosen(0.0)
    assert (choice.outcome, choice.text) == (0.0, ("Sing", *comparison.answers))
    learned = relearned(taste(), [choice])
    told = sum(learned.coefficients[n].mean * (choice.second[n] - choice.first[n]) for n in NAMES)
    assert told > 0  # what was preferred is now expected to be
