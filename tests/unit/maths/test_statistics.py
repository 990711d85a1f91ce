"""Separation statistics, re-derived by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from burnish.maths.protection import leading_components, without
from burnish.maths.statistics import auroc, d_prime, effective_rank, largest_share, unit

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)


@given(scores, scores)
def test_auroc_is_the_share_of_pairs_in_the_right_order(positive: list[float], negative: list[float]) -> None:
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    share = auroc(torch.tensor(positive), torch.tensor(negative))
    assert float(share) == pytest.approx(wins / len(positive) / len(negative))


def test_auroc_works_on_a_row_a_layer() -> None:
    shares = auroc(torch.tensor([[3.0, 4.0], [1.0, 2.0]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert shares.tolist() == [1.0, 0.0]


def test_d_prime_counts_pooled_standard_deviations() -> None:
    positive, negative = torch.tensor([4.0, 6.0]), torch.tensor([0.0, 2.0])
    assert float(d_prime(positive, negative)) == pytest.approx(4 / 2**0.5)


def test_unit_refuses_what_has_no_direction() -> None:
    for vector in ([0.0, 0.0], [float("nan"), 1.0]):
        with pytest.raises(ValueError, match="length zero or is not finite"):
            unit(torch.tensor(vector))


def test_largest_share_of_one_coordinate_and_of_equal_ones() -> None:
    assert float(largest_share(torch.tensor([0.0, 2.0, 0, 0, 0, 0, 0, 0]))) == 1
    assert float(largest_share(torch.ones(8))) == pytest.approx(0.5)


def test_effective_rank_of_equal_and_of_orthogonal_directions() -> None:
    assert effective_rank(torch.ones(3, 5)) == pytest.approx(1)
    assert effective_rank(torch.eye(3, 5)) == pytest.approx(3)


def test_without_leaves_nothing_of_the_protected_span() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 9, 16, generator=generator, dtype=torch.float64) + 1
    spared = leading_components(states, 3)
    assert spared.shape == (2, 4, 16)
    directions = unit(torch.randn(2, 16, generator=generator, dtype=torch.float64))
    left = without(directions, spared)
    torch.testing.assert_close(torch.einsum("lmh,lh->lm", spared, left), torch.zeros(2, 4, dtype=torch.float64))
    torch.testing.assert_close(left.norm(dim=1), torch.ones(2, dtype=torch.float64))


def test_the_protected_mean_stays_where_it_is() -> None:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(1, 20, 16, generator=generator, dtype=torch.float64) + 2
    left = without(unit(torch.randn(1, 16, generator=generator, dtype=torch.float64)), leading_components(states, 0))
    assert abs(float(states.mean(1)[0] @ left[0])) < 1e-12
