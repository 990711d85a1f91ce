"""An edit is recovered from the two weights alone, and what is no edit is not taken for one."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from burnish.maths.gain import edit_weight, low_rank_edit
from burnish.maths.low_rank import Change, analyse_change, equal_gain_spans, follows
from burnish.maths.rounding import round_along
from burnish.maths.statistics import unit

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
GAINS = [0.1, 0.5, 1.5, -0.5, -1.0]
SHAPES = [(64, 64), (64, 96), (96, 64)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def columns(hidden: int, count: int, cosine: float = 0.0) -> Tensor:
    """Random unit columns [hidden, count], the later ones with about this cosine to the first."""
    exact = torch.linalg.qr(random(hidden, count, seed=7)).Q
    return unit(torch.cat([exact[:, :1], cosine * exact[:, :1] + (1 - cosine**2) ** 0.5 * exact[:, 1:]], 1), dim=0)


def edited(weight: Tensor, directions: Tensor, gains: list[float], norm: Tensor | None = None) -> Tensor:
    """The weight with the edit baked in, in its own type."""
    edit = low_rank_edit(directions, torch.tensor(gains), norm)
    return round_along(edit_weight(weight, edit), edit.right, weight.dtype)


def cosines(change: Change, directions: Tensor) -> Tensor:
    """|cosine| of each recovered direction with the one at its place."""
    return (change.directions * directions).sum(0).abs()


def grid() -> Iterator[Any]:
    """Every gain, shape, type and norm: in every run any two of them together, all four in `make test-full`."""
    for (i, gain), (j, shape), (k, dtype) in product(*map(enumerate, (GAINS, SHAPES, DTYPES))):  # type: ignore[arg-type]
        for norm in (False, True):
            pairs = (i + j) % 3 == k and bool((i + j) % 2) == norm
            yield pytest.param(dtype, shape, gain, norm, marks=[] if pairs else [pytest.mark.full])


@pytest.mark.parametrize(("dtype", "shape", "gain", "norm"), grid())
def test_one_direction_and_its_gain_are_recovered(
    dtype: torch.dtype, shape: tuple[int, int], gain: float, norm: bool
) -> None:
    weight = (0.02 * random(*shape)).to(dtype)
    scale = random(shape[0], seed=3).abs() + 0.2 if norm else None
    direction = columns(shape[0], 1)
    change = analyse_change(weight, edited(weight, direction, [gain], scale), norm_weight=scale)
    assert (change.kind, change.rank) == ("directional", 1)
    assert change.gains == pytest.approx([gain], rel=0.01)
    assert cosines(change, direction).min() > 0.999


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [False, True])
def test_directions_that_are_not_orthogonal_keep_a_gain_each(dtype: torch.dtype, norm: bool) -> None:
    weight = (0.02 * random(96, 128)).to(dtype)
    scale = random(96, seed=3).abs() + 0.2 if norm else None
    directions, gains = columns(96, 3, cosine=0.6), [1.2, 0.7, -0.4]
    change = analyse_change(weight, edited(weight, directions, gains, scale), norm_weight=scale)
    assert (change.kind, change.rank) == ("directional", 3)
    assert change.gains == pytest.approx(gains, rel=0.01)
    assert cosines(change, directions).min() > 0.999


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_gains_are_recovered_as_one_span(dtype: torch.dtype) -> None:
    weight, directions = (0.02 * random(96, 128)).to(dtype), columns(96, 3, cosine=0.5)
    change = analyse_change(weight, edited(weight, directions, [0.5, 0.5, 1.0]))
    assert change.gains == pytest.approx([1.0, 0.5, 0.5], rel=0.01)
    pair, single = equal_gain_spans(change)
    assert pair.shape == (96, 2)
    assert (pair.T @ directions[:, :2]).norm(dim=0).min() > 0.999
    assert (single.T @ directions[:, 2:]).norm() > 0.999


def test_a_direction_held_still_is_needed_to_explain_the_others() -> None:
    weight, directions = 0.02 * random(96, 128), columns(96, 2, cosine=0.6)
    after = edited(weight, directions, [0.5, 0.0])
    assert analyse_change(weight, after).kind == "low-rank"
    strangers = columns(96, 5)[:, 1:]
    assert analyse_change(weight, after, held=strangers).kind == "low-rank"
    change = analyse_change(weight, after, held=directions)
    assert (change.kind, change.held) == ("directional", True)
    assert change.gains == pytest.approx([0.5], rel=0.01)
    assert cosines(change, directions[:, :1]).min() > 0.999
    assert change.residual < 1e-6


def test_known_directions_change_nothing_where_they_are_not_needed() -> None:
    weight, direction = 0.02 * random(96, 128), columns(96, 1)
    after = edited(weight, direction, [0.5])
    blind, told = analyse_change(weight, after), analyse_change(weight, after, held=columns(96, 3))
    assert not told.held
    # Several threads round differently.
    torch.testing.assert_close(told.directions, blind.directions, rtol=0, atol=1e-5)
    assert told.gains == pytest.approx(blind.gains, rel=1e-6)


def test_a_small_gain_in_bfloat16_is_seen_but_less_exact() -> None:
    weight, direction = (0.02 * random(256, 256)).bfloat16(), columns(256, 1)
    change = analyse_change(weight, edited(weight, direction, [0.02]))
    assert change.kind == "directional"
    assert change.gains == pytest.approx([0.02], rel=0.1)
    assert 0.95 < cosines(change, direction).min() < 0.999
    assert change.residual > 0.2  # most of the rest is rounding, and the entry says so
    assert change.rounding > 0.2


def test_a_gain_far_below_the_steps_is_called_rounding() -> None:
    weight, direction = (0.02 * random(256, 256)).bfloat16(), columns(256, 1)
    change = analyse_change(weight, edited(weight, direction, [0.002]))
    assert (change.kind, change.rank, change.gains) == ("rounding", 0, ())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_rounding_alone_is_rounding(kind: torch.dtype) -> None:
    weight = random(64, 96)
    assert analyse_change(weight, weight.to(kind).float()).kind == "rounding"


def test_an_edit_rounded_to_bfloat16_and_stored_in_float32_is_judged_as_bfloat16() -> None:
    weight, direction = (0.02 * random(96, 128)).bfloat16(), columns(96, 1)
    after = edited(weight, direction, [0.5])
    stored = analyse_change(weight.float(), after.float())
    assert stored.kind == "directional"
    assert stored.rounding == analyse_change(weight, after).rounding


@pytest.mark.parametrize("size", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_random_change_is_dense(dtype: torch.dtype, size: float) -> None:
    weight = random(96, 128).to(dtype)
    change = analyse_change(weight, (weight.float() + size * random(96, 128, seed=1)).to(dtype))
    assert (change.kind, change.rank, change.gains) == ("dense", None, ())
    assert change.relative_size == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize("shape", [*SHAPES, (256, 256)])
@pytest.mark.parametrize("gains", [[0.5], [1.0, 0.2]])
def test_noise_under_an_edit_is_left_over_and_never_taken_for_directions(
    shape: tuple[int, int], gains: list[float]
) -> None:
    weight, directions = 0.02 * random(*shape), columns(shape[0], len(gains))
    edit = edited(weight, directions, gains) - weight
    noise = random(*shape, seed=9)
    change = analyse_change(weight, weight + edit + 0.05 * noise * edit.norm() / noise.norm())
    assert (change.kind, change.rank) == ("directional", len(gains))
    assert change.gains == pytest.approx(gains, rel=0.05)
    assert change.residual == pytest.approx(0.05**2, rel=0.2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_change_with_a_few_large_components_and_a_long_tail_is_dense(dtype: torch.dtype) -> None:
    weight = random(128, 128).to(dtype)
    left, values, right = torch.linalg.svd(random(128, 128, seed=1))
    tail = left @ torch.diag(values[0] * 0.8 ** torch.arange(128)) @ right + 0.02 * random(128, 128, seed=2)
    assert analyse_change(weight, (weight.float() + 0.2 * tail).to(dtype)).kind == "dense"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [1, 4, 16])
def test_a_merged_adapter_is_low_rank_but_not_directional(dtype: torch.dtype, rank: int) -> None:
    weight = random(64, 96).to(dtype)
    change = analyse_change(weight, (weight.float() + random(64, rank, seed=1) @ random(rank, 96, seed=2)).to(dtype))
    assert (change.kind, change.rank, change.gains) == ("low-rank", rank, ())
    assert change.residual > 0.5
    assert change.directions.shape == (64, 0)


def test_a_rank_above_the_one_looked_for_is_dense() -> None:
    weight = random(64, 96)
    change = analyse_change(weight, weight + random(64, 17, seed=1) @ random(17, 96, seed=2))
    assert (change.kind, change.looked_for) == ("dense", 16)


def test_an_edit_of_the_inputs_and_a_rotation_are_not_directional() -> None:
    weight, plane = random(64, 64), columns(64, 2)
    turn = plane @ torch.tensor([[-0.5, -0.8], [0.8, -0.5]]) @ plane.T
    for after in (weight + weight @ plane[:, :1] @ plane[:, :1].T, weight + turn @ weight):
        assert analyse_change(weight, after).kind == "low-rank"


def test_equal_weights_are_unchanged() -> None:
    weight = random(64, 96)
    change = analyse_change(weight, weight.clone())
    assert (change.kind, change.rank, change.relative_size, change.operator) == ("none", 0, 0.0, None)


def test_weights_made_from_nothing_have_no_relative_size() -> None:
    change = analyse_change(torch.zeros(64, 96), random(64, 2) @ random(2, 96))
    assert (change.kind, change.relative_size) == ("low-rank", float("inf"))


def test_zeros_stay_exact() -> None:
    weight = random(64, 96) * (random(64, 96, seed=4) > 0)
    change = analyse_change(weight, edited(weight, columns(64, 1), [0.01]))
    assert change.gains == pytest.approx([0.01], rel=0.01)


def test_values_that_are_not_finite_are_refused() -> None:
    weight = random(64, 96)
    broken = weight.clone()
    broken[3, 4] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        analyse_change(weight, broken)


def test_the_inputs_are_left_alone_and_the_answer_is_the_same_twice() -> None:
    weight = (0.02 * random(96, 128)).bfloat16()
    after = edited(weight, columns(96, 2, cosine=0.3), [0.5, 0.2])
    before = weight.clone(), after.clone()
    first, second = analyse_change(weight, after), analyse_change(weight, after)
    assert torch.equal(weight, before[0])
    assert torch.equal(after, before[1])
    assert first.gains == pytest.approx(second.gains, rel=1e-6)  # sums over several threads round differently
    torch.testing.assert_close(first.directions, second.directions, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [False, True])
def test_a_bias_follows_its_weight_only_under_the_same_edit(dtype: torch.dtype, norm: bool) -> None:
    weight, bias = (0.02 * random(96, 128)).to(dtype), random(96, 1, seed=5).to(dtype)
    scale = random(96, seed=3).abs() + 0.2 if norm else None
    directions = columns(96, 2)
    change = analyse_change(weight, edited(weight, directions, [0.8, 0.3], scale), norm_weight=scale)
    right, wrong = edited(bias, directions, [0.8, 0.3], scale), edited(bias, directions, [0.3, 0.8], scale)
    assert follows(change, bias[:, 0], right[:, 0], scale)
    assert not follows(change, bias[:, 0], wrong[:, 0], scale)
    assert not follows(change, bias[:, 0], bias[:, 0], scale)
    same = analyse_change(weight, weight)
    assert follows(same, bias[:, 0], bias[:, 0])
    assert not follows(same, bias[:, 0], right[:, 0])
