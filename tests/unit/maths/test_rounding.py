"""The gain survives the storage type."""

import pytest
import torch

from burnish.maths.gain import edit_weight, low_rank_edit
from burnish.maths.rounding import realised_gain, round_along
from burnish.maths.statistics import unit


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gain", [0.02, 0.05, 0.3, -0.02])
@pytest.mark.parametrize("rank", [1, 2])
def test_small_gains_survive(dtype: torch.dtype, gain: float, rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(256, 320, generator=generator) * 0.02).to(dtype)
    edit = low_rank_edit(unit(torch.randn(rank, 256, generator=generator)).T, torch.full((rank,), gain))
    rounded = round_along(edit_weight(weight, edit), edit.right, dtype)
    assert rounded.dtype == dtype
    torch.testing.assert_close(
        realised_gain(weight, rounded, edit), torch.full((rank,), gain).double(), rtol=0.01, atol=0
    )


def test_no_element_moves_far_from_the_exact_value() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(256, 64, generator=generator).bfloat16()
    edit = low_rank_edit(unit(torch.randn(1, 256, generator=generator)).T, torch.tensor([0.05]))
    exact = edit_weight(weight, edit)
    off = (round_along(exact, edit.right, torch.bfloat16).float() - exact).abs()
    one_unit = 2.0**-7 * exact.abs().max()  # bfloat16 keeps 8 bits: one unit in the last place of the largest element
    assert off.max() < one_unit
    assert off.mean() < one_unit / 8


def test_round_to_nearest_alone_would_lose_the_gain() -> None:
    """Why the error feedback exists: the figure of the method notes, at a smaller size."""
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(2048, 128, generator=generator) * 0.02).bfloat16()
    edit = low_rank_edit(unit(torch.randn(1, 2048, generator=generator)).T, torch.tensor([0.02]))
    nearest = edit_weight(weight, edit).bfloat16()
    assert realised_gain(weight, nearest, edit)[0] < 0.012


def test_gain_zero_changes_no_element() -> None:
    weight = torch.randn(32, 16).bfloat16()
    edit = low_rank_edit(unit(torch.randn(1, 32)).T, torch.tensor([0.0]))
    assert torch.equal(round_along(edit_weight(weight, edit), edit.right, torch.bfloat16), weight)


def test_a_tiny_addition_survives_bfloat16_along_its_columns() -> None:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(256, 128, generator=generator).bfloat16().float()
    b = 1e-4 * torch.randn(256, 4, generator=generator)
    added = b @ torch.randn(4, 128, generator=generator)
    assert added.norm() < 1e-3 * weight.norm()

    def shares_kept(rounded: torch.Tensor) -> float:
        return float(((rounded.float() - weight) * added).sum() / added.square().sum())

    assert shares_kept(round_along(weight + added, torch.linalg.qr(b).Q.T, torch.bfloat16)) == pytest.approx(
        1, abs=0.02
    )
    assert shares_kept((weight + added).bfloat16()) < 0.3
