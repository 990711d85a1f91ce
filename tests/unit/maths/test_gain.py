"""Laws of the edit."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.maths.gain import low_rank_edit
from burnish.maths.statistics import unit

sizes = st.tuples(st.integers(4, 24), st.integers(2, 30), st.integers(1, 3), st.integers(0, 10_000))
factors = st.floats(-0.95, 4)


def case(size: tuple[int, int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    hidden, inputs, k, seed = size
    generator = torch.Generator().manual_seed(seed)
    directions = unit(torch.randn(k, hidden, generator=generator, dtype=torch.float64)).T
    return directions, torch.randn(hidden, inputs, generator=generator, dtype=torch.float64)


@settings(deadline=None, max_examples=60)
@given(sizes, factors)
def test_gain_along_one_direction_is_exactly_one_plus_factor(size: tuple[int, int, int, int], factor: float) -> None:
    directions, weight = case((size[0], size[1], 1, size[3]))
    edit = low_rank_edit(directions, torch.tensor([factor]))
    after = weight + edit.left @ (edit.right @ weight)
    v = directions[:, 0]
    factor = float(torch.tensor(factor))  # as float32 stores it
    torch.testing.assert_close(v @ after, (1 + factor) * (v @ weight))


@settings(deadline=None, max_examples=60)
@given(sizes, factors)
def test_complement_is_untouched(size: tuple[int, int, int, int], factor: float) -> None:
    directions, weight = case(size)
    edit = low_rank_edit(directions, torch.full((size[2],), factor))
    complement = torch.eye(size[0], dtype=torch.float64) - directions @ torch.linalg.pinv(directions)
    torch.testing.assert_close(complement @ (weight + edit.left @ (edit.right @ weight)), complement @ weight)


def test_each_of_several_oblique_directions_gets_its_own_gain() -> None:
    generator = torch.Generator().manual_seed(1)
    directions = unit(torch.randn(3, 16, generator=generator, dtype=torch.float64) + 1).T
    gains = torch.tensor([0.5, -0.3, 2.0])
    edit = low_rank_edit(directions, gains)
    for column, gain in zip(directions.T, gains, strict=True):
        torch.testing.assert_close(column + edit.left @ (edit.right @ column), (1 + gain.double()) * column)


def test_post_norm_form_gives_the_gain_after_the_norm() -> None:
    generator = torch.Generator().manual_seed(2)
    scale = torch.rand(16, generator=generator, dtype=torch.float64) + 0.2
    v = unit(torch.randn(1, 16, generator=generator, dtype=torch.float64)).T
    y = torch.randn(16, generator=generator, dtype=torch.float64)
    edit = low_rank_edit(v, torch.tensor([0.75]), scale)
    after = y + edit.left @ (edit.right @ y)
    torch.testing.assert_close(v[:, 0] @ (scale * after), 1.75 * (v[:, 0] @ (scale * y)))
    complement = torch.eye(16, dtype=torch.float64) - v @ v.T
    torch.testing.assert_close(complement @ (scale * after), complement @ (scale * y))
