"""The largest strength within a limit, from a few measured ones."""

import pytest

from burnish.maths.strength import largest_within


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
