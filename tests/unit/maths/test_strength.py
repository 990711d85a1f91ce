"""The largest strength within a limit: from a few measured ones, and measured itself."""

from collections.abc import Callable
from math import expm1, inf

import pytest

from burnish.maths.strength import CLOSE, NOTHING, ROUNDS, Search, largest_within


def test_loads_that_grow_as_a_power_are_met_exactly() -> None:
    for power in (1.0, 2.0, 3.0):
        scales = (0.5, 1.0, 2.0)
        assert largest_within(scales, [(s / 0.8) ** power for s in scales]) == pytest.approx(0.8)


def test_below_the_smallest_scale_the_load_falls_as_its_square() -> None:
    assert largest_within((1.0, 2.0), (4.0, 16.0)) == pytest.approx(0.5)


def test_the_largest_measured_scale_is_the_most_there_is() -> None:
    assert largest_within((0.7, 1.0, 1.4), (0.1, 0.2, 0.4)) == 1.4


def test_a_load_that_falls_again_is_not_believed_within() -> None:
    assert largest_within((1.0, 2.0, 3.0), (0.5, 2.0, 1.5)) < 2.0


LOADS = {
    "square": lambda s: 3.0 * s**2,
    "saturating": lambda s: 30 * s**2 / (1 + s**2) ** 0.7,
    "steepening": lambda s: expm1(2 * s) ** 2,
    "with a floor": lambda s: 0.4 + 30 * s**2,
    "tiny": lambda s: 1e-4 * s**2,
}


def search(loads: list[Callable[[float], float]], most: float = inf) -> tuple[list[float], int]:
    searching, rounds = Search([1.0] * len(loads), most), 0
    while searching.asked:
        searching.tell([loads[i](strength) for i, strength in searching.asked.items()])
        rounds += 1
    return searching.strengths, rounds


def test_each_of_several_edits_reaches_the_limit_and_never_exceeds_it() -> None:
    strengths, rounds = search(list(LOADS.values()))
    assert rounds <= ROUNDS
    for load, strength in zip(LOADS.values(), strengths, strict=True):
        assert 1 - CLOSE <= load(strength) <= 1
        assert search([load])[0] == [strength]


def test_no_strength_is_above_the_most_and_the_most_is_measured_first() -> None:
    strengths, _ = search(list(LOADS.values()), most=1.0)
    assert max(strengths) == strengths[-1] == 1.0
    assert search([LOADS["tiny"]], most=1.0)[1] == 1


def test_a_limit_that_no_strength_keeps_is_strength_zero() -> None:
    assert search([lambda s: 5.0]) == ([0.0], ROUNDS)


def test_what_moves_nothing_stays_as_it_is() -> None:
    assert search([lambda s: NOTHING * s / 2]) == ([1.0], 1)


def test_a_jump_is_met_from_below() -> None:
    ((strength,), _) = search([lambda s: 0.1 * s if s < 0.3 else 4.0])
    assert 0.1 < strength < 0.3
