"""Profiles: what they claim in words, what they start from, and how they travel."""

from dataclasses import replace

import pytest

from burnish.errors import InputError
from burnish.personal.accuracy import accuracy
from burnish.personal.choice_update import belief_of, opposites, relearned
from burnish.personal.profile import Choice, Coefficient, Profile, Scale, Units, checked_names, describe

EMPTY = Profile("1", "mine")


def choices(count: int, name: str = "concrete-abstract", outcome: float = 1.0) -> list[Choice]:
    """Choices of the answer with more of one feature."""
    return [
        Choice({name: 1.0 + 0.1 * i, "education": 0.1 * i}, {name: -1.0, "education": 0.0}, outcome, "f")
        for i in range(count)
    ]


def test_a_profile_travels_as_json() -> None:
    full = replace(
        relearned(replace(EMPTY, sliders={"long-short": 0.4}), choices(6)),
        units=Units("model", "f", {"education": 2.0}),
        scales={"f": Scale(0.7, "plan")},
        keep_text=True,
    )
    assert Profile.from_json(full.as_json()) == full
    for text in ("{}", "not json"):
        with pytest.raises(InputError, match="cannot be read"):
            Profile.from_json(text)


def test_a_budget_leaves_room_and_a_name_is_visible_text() -> None:
    for budget in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="no room"):
            replace(EMPTY, budget=budget)
    for name in ("", "  ", " mine", "a\nb", "\ud800", 'so "called"', "x" * 81):
        with pytest.raises(InputError, match="visible text"):
            replace(EMPTY, name=name)


def test_only_what_excludes_zero_is_claimed() -> None:
    coefficients = {
        "concrete-abstract": Coefficient(0.5, 0.2, "choices"),
        "long-short": Coefficient(-1.2, 0.3, "choices"),
        "formal-casual": Coefficient(0.2, 0.09, "choices"),
        "creative-writing": Coefficient(2.0, 1.5, "choices"),  # large, and not sure
        "education": Coefficient(-0.4, 0.1, "choices"),
    }
    text = describe(EMPTY.with_coefficients(coefficients, 14, accuracy(7, 9)))
    assert text == (
        "much shorter, more concrete, less like education and explanation, slightly more formal; 14 choices, predicts 78% of held-out choices "
        "(45% to 94%)"
    )


def test_nothing_sure_claims_nothing() -> None:
    assert describe(EMPTY) == "nothing learned yet for sure"
    unsure = {"education": Coefficient(0.5, 0.3, "choices")}
    assert describe(EMPTY.with_coefficients(unsure, 1, None)) == "nothing learned yet for sure; 1 choice"


def test_what_was_set_by_hand_is_said_to_be() -> None:
    profile = relearned(replace(EMPTY, sliders={"warm-neutral": 0.5, "creative-writing": -0.2}), [])
    assert profile.coefficients["warm-neutral"] == Coefficient(0.5, 0.0, "sliders")
    assert describe(profile) == "set by hand: warmer, slightly less like creative writing"


def test_choices_start_from_the_sliders_and_overrule_them() -> None:
    profile = replace(EMPTY, sliders={"concrete-abstract": -1.0})
    assert belief_of(profile, [], ["concrete-abstract", "education"]).mean.tolist() == pytest.approx([-1.0, 0.0])
    few, many = (relearned(profile, choices(n)).coefficients["concrete-abstract"] for n in (1, 60))
    assert -1.0 < few.mean < many.mean
    assert many.mean > 0.3
    assert many.source == "choices"


def test_learning_is_the_same_each_time_and_forgets_old_scales() -> None:
    profile = replace(EMPTY, scales={"f": Scale(0.5, "plan")})
    one, two = relearned(profile, choices(8)), relearned(profile, choices(8))
    assert one.as_json() == two.as_json()
    assert one.scales == {}
    assert one.choices == 8
    assert one.accuracy is not None


def test_a_name_that_one_side_was_not_read_on_says_nothing() -> None:
    lone = Choice({"education": 3.0, "long-short": 1.0}, {"long-short": 0.0}, 1.0, "f")
    assert list(relearned(EMPTY, [lone]).coefficients) == ["long-short"]


def test_the_two_mixes_lie_to_either_side_of_what_is_believed_along_what_is_known_least() -> None:
    names = ["concrete-abstract", "education", "long-short"]
    belief = belief_of(EMPTY, choices(30), names)  # says nothing of long-short
    more, less = opposites(EMPTY, names, belief)
    middle = {n: (more.coefficients[n].mean + less.coefficients[n].mean) / 2 for n in names}
    assert list(middle.values()) == pytest.approx(belief.mean.tolist())
    apart = {n: abs(more.coefficients[n].mean - less.coefficients[n].mean) for n in names}
    assert max(apart, key=lambda n: apart[n]) == "long-short"
    assert apart["long-short"] / 2 == pytest.approx(float(belief.deviation[2]), rel=0.05)


def test_sliders_have_known_names_and_finite_values() -> None:
    checked_names(EMPTY, {"formal-casual": -0.3, "creative-writing": 1.0})
    with pytest.raises(InputError, match="no direction 'poetry' in 'en'"):
        checked_names(EMPTY, {"poetry": 1.0})
    with pytest.raises(InputError, match="no direction 'education' in 'ko'"):
        checked_names(replace(EMPTY, language="ko"), {"education": 1.0})
    for value in (float("nan"), float("inf"), -11.0):
        with pytest.raises(InputError, match="between -10 and 10"):
            checked_names(EMPTY, {"education": value})
