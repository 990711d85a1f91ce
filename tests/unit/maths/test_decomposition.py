"""Taking vectors apart."""

import pytest
import torch

from burnish.maths.decomposition import kurtosis, parts_of
from burnish.maths.statistics import unit


def test_a_planted_mixture_is_found_and_nothing_is_left() -> None:
    named = unit(torch.randn(3, 40, generator=torch.Generator().manual_seed(0)).double())
    wanted = torch.tensor([0.7, -0.2, 0.4], dtype=torch.float64)
    mixture = wanted @ named
    parts = parts_of(mixture, named)
    assert torch.allclose(parts.coefficients, wanted / mixture.norm(), atol=1e-9)
    assert parts.unexplained == pytest.approx(0, abs=1e-12)
    assert torch.allclose(parts.cosines, named @ unit(mixture), atol=1e-12)


def test_what_is_orthogonal_to_every_name_is_left_whole() -> None:
    axes = torch.eye(6)
    parts = parts_of(axes[5], axes[:3])
    assert parts.unexplained == pytest.approx(1)
    assert parts.coefficients.abs().max() < 1e-12


def test_names_that_are_alike_share_what_they_explain() -> None:
    vector = torch.eye(4)[0]
    parts = parts_of(vector, torch.stack([vector, vector]))
    assert parts.coefficients.tolist() == pytest.approx([0.5, 0.5])


def test_a_random_vector_leaves_one_minus_names_over_size_on_average() -> None:
    generator = torch.Generator().manual_seed(1)
    left = [
        parts_of(torch.randn(50, generator=generator), torch.randn(10, 50, generator=generator)).unexplained
        for _ in range(300)
    ]
    assert sum(left) / len(left) == pytest.approx(1 - 10 / 50, abs=0.02)


def test_kurtosis_is_three_for_normal_values_and_larger_where_one_stands_out() -> None:
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(3))
    assert float(kurtosis(values)) == pytest.approx(3, abs=0.1)
    values[0] = 100
    assert float(kurtosis(values)) > 100
