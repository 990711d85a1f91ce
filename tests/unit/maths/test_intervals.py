"""Intervals, tests and the discriminant, against known answers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from burnish.maths.intervals import holm, interval, interval_above, separating_direction


def test_a_clear_difference_excludes_zero_and_noise_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40, generator=generator)
    clear = interval(noise + 2)
    assert clear.low < clear.mean < clear.high
    assert clear.excludes_zero
    assert clear.p < 0.001
    nothing = interval(noise - noise.mean())
    assert not nothing.excludes_zero
    assert nothing.p > 0.9


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(1)
    covered = 0
    for seed in range(100):
        bounds = interval(torch.randn(30, generator=generator) + 0.3, seed=seed)
        covered += bounds.low <= 0.3 <= bounds.high
    assert 86 <= covered <= 99


def test_the_same_seed_gives_the_same_interval() -> None:
    values = torch.arange(12.0)
    assert interval(values, seed=3) == interval(values, seed=3)
    assert interval(values, seed=3) != interval(values, seed=4)


def test_above_subtracts_what_random_directions_show_and_widens_by_their_spread() -> None:
    generator = torch.Generator().manual_seed(3)
    pairs = torch.randn(20, generator=generator)
    steady = interval_above((pairs + 1)[None], pairs.repeat(3, 1))
    assert steady.mean == pytest.approx(1)
    assert (steady.low, steady.high) == pytest.approx((1, 1))
    spread = interval_above((pairs + 1)[None], pairs + torch.tensor([[-2.0], [0.0], [2.0]]))
    assert spread.mean == pytest.approx(1)
    assert not spread.excludes_zero
    assert interval_above(pairs[None], pairs[None]).p == 1


def test_directions_of_one_kind_differ_by_nothing_about_nineteen_times_in_twenty() -> None:
    generator = torch.Generator().manual_seed(4)
    covered = 0
    for seed in range(200):
        pairs = torch.randn(20, generator=generator)
        spread = torch.randn(6, 1, generator=generator) + 0.1 * torch.randn(6, 20, generator=generator)
        covered += not interval_above((pairs + spread)[:3], (pairs + spread)[3:], seed=seed).excludes_zero
    assert 180 <= covered <= 199


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_no_values_or_no_numbers_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        interval(torch.tensor(values))


def test_holm_adjusts_step_by_step() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_adjusted_values_keep_the_order_and_are_never_smaller(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_the_discriminant_finds_a_planted_direction_in_few_rows() -> None:
    generator = torch.Generator().manual_seed(2)
    planted = torch.zeros(64)
    planted[5] = 3.0
    rows = torch.randn(4, 20, 64, generator=generator)
    weights, bias = separating_direction(rows[0] + planted, rows[1] - planted)
    assert int(weights.abs().argmax()) == 5
    assert float(((rows[2] + planted).double() @ weights + bias > 0).double().mean()) > 0.9
    assert float(((rows[0] + planted).double() @ weights + bias).mean()) == pytest.approx(0.5)
    assert float(((rows[1] - planted).double() @ weights + bias).mean()) == pytest.approx(-0.5)
