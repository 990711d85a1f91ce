"""Layers, windows and factors as people write them."""

import pytest

from burnish.errors import InputError, LayerError
from burnish.layers import layer_index, layer_window
from burnish.options import FindOptions, checked_factor


@pytest.mark.parametrize(
    ("text", "layers", "index"),
    [("60%", 32, 19), ("60%", 30, 18), ("0%", 30, 0), ("100%", 30, 29), ("19", 32, 19), (" 7 ", 8, 7), (3, 4, 3)],
)
def test_a_layer_is_a_number_or_a_share_of_the_depth(text: str | int, layers: int, index: int) -> None:
    assert layer_index(text, layers) == index


@pytest.mark.parametrize("text", ["32", "-1", "101%", "-5%", "upper", "", "1.5", "60 percent"])
def test_other_layers_are_refused_with_the_range(text: str) -> None:
    with pytest.raises(LayerError, match=r"0..31|0%|100%"):
        layer_index(text, 32)


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("all", range(10)),
        ("60%..", range(6, 10)),
        ("2..4", range(2, 5)),
        ("..50%", range(6)),
        ("7", range(7, 8)),
        ("..", range(10)),
    ],
)
def test_a_window_includes_both_ends(text: str, window: range) -> None:
    assert layer_window(text, 10) == window


@pytest.mark.parametrize("text", ["7..3", "5..10", "a..b"])
def test_other_windows_are_refused(text: str) -> None:
    with pytest.raises(LayerError):
        layer_window(text, 10)


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -1.01])
def test_factors_that_make_no_sense_are_refused(factor: float) -> None:
    with pytest.raises(InputError, match="factor"):
        checked_factor(factor)


def test_fractions_negatives_and_removal_are_factors() -> None:
    assert [checked_factor(f) for f in (-1.0, -0.3, 0.0, 0.02, 1.5)] == [-1.0, -0.3, 0.0, 0.02, 1.5]


def test_the_published_defaults() -> None:
    assert FindOptions() == FindOptions(95, "60%", "single", "residual", "prompt", False, 0, False)
    with pytest.raises(InputError, match="instructions"):
        FindOptions(instructions=1)
