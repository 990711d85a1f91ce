"""The order of rows, and the scale that keeps damage within a budget."""

from collections import Counter

import pytest

from burnish.errors import InputError
from burnish.hybrid.barrier import within
from burnish.hybrid.tokenised import order
from burnish.maths.intervals import Interval


def test_both_kinds_come_by_their_share_in_every_step_and_every_row_equally_often() -> None:
    rows = order(4, 10, 0.25, 80, 0)
    kinds = Counter(kind for kind, _ in rows)
    assert kinds == {False: 60, True: 20}
    assert set(Counter(index for kind, index in rows if kind).values()) == {2}
    assert set(Counter(index for kind, index in rows if not kind).values()) == {15}
    rows = order(30, 30, 0.5, 64, 1)
    assert all({kind for kind, _ in rows[i : i + 8]} == {False, True} for i in range(0, 64, 8))


def test_a_longer_training_begins_like_a_shorter_one() -> None:
    assert order(7, 5, 0.4, 100, 2)[:30] == order(7, 5, 0.4, 30, 2)
    assert order(7, 5, 0.4, 30, 2) != order(7, 5, 0.4, 30, 3)


@pytest.mark.parametrize(("style", "knowledge", "share"), [(3, 0, 0.5), (0, 3, 0.5), (0, 3, 0.0), (3, 0, 1.0)])
def test_a_share_of_rows_that_are_not_there_is_refused(style: int, knowledge: int, share: float) -> None:
    with pytest.raises(InputError, match="rows of both kinds"):
        order(style, knowledge, share, 8, 0)


@pytest.mark.parametrize("size", [0.5, 2.0, 30.0])
@pytest.mark.parametrize("floor", [0.0, 0.4])
def test_the_scale_found_is_within_the_budget_and_uses_it_or_is_zero(size: float, floor: float) -> None:
    def measure(scale: float) -> Interval:
        return damage(floor + size * scale**2)

    scale, measured = within(measure, 1.0)
    assert measured == measure(scale)
    assert measured.high <= 1.0
    assert scale == 1.0 or measured.high > 0.8
    assert within(lambda scale: damage(0.0 if scale == 0 else 5.0), 1.0) == (0.0, damage(0.0))


def damage(high: float) -> Interval:
    return Interval(0.7 * high, 0.5 * high, high, 0.5, 48)
