"""Laws of the trust-region step."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from burnish.maths.trust_region import RIDGES, best_gains, choose_ridge, depth_basis, information


def positive(n: int, seed: int) -> torch.Tensor:
    rows = torch.randn(3 * n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows.T @ rows / len(rows)


def objective(a: torch.Tensor, pull: torch.Tensor, curvature: torch.Tensor) -> float:
    return float(pull @ a - a @ curvature @ a / 2)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(0, 1000), st.floats(0.01, 30))
@example(2, 466, 5.0)  # a flat damage, of which a ridge of 1e-4 left a visible part unused
def test_no_other_gains_within_the_budget_gain_more(n: int, seed: int, strength: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    pull = strength * torch.randn(n, generator=generator, dtype=torch.float64)
    curvature, damage = positive(n, seed + 1), positive(n, seed + 2)
    best = best_gains(pull, curvature, damage, ridge=0.0)
    assert float(best @ damage @ best) / 2 <= 1 + 1e-6
    for _ in range(200):
        other = best + 0.3 * torch.randn(n, generator=generator, dtype=torch.float64)
        other = other / max(1.0, float(other @ damage @ other) / 2) ** 0.5
        assert objective(other, pull, curvature) <= objective(best, pull, curvature) + 1e-6 * abs(strength)


def test_with_room_to_spare_the_step_is_newtons_and_without_it_the_natural_gradient() -> None:
    pull, curvature, damage = torch.tensor([1.0, -2.0, 0.5]).double(), positive(3, 0), positive(3, 1)
    wide = best_gains(pull, curvature, 1e-6 * damage, ridge=0.0)
    torch.testing.assert_close(wide, torch.linalg.solve(curvature, pull), rtol=1e-4, atol=1e-6)
    tight = best_gains(pull, 1e-9 * curvature, damage, ridge=0.0)
    natural = torch.linalg.solve(damage, pull)
    natural = natural * (2 / (natural @ damage @ natural)) ** 0.5
    torch.testing.assert_close(tight, natural, rtol=1e-2, atol=1e-3)
    assert float(tight @ damage @ tight) / 2 == pytest.approx(1, rel=1e-3)


def test_a_planted_optimum_is_found() -> None:
    curvature, damage = positive(6, 3), positive(6, 4)
    planted = 0.1 * torch.tensor([1.0, -0.5, 0, 2, 0.3, -1]).double()
    torch.testing.assert_close(
        best_gains(curvature @ planted, curvature, damage, ridge=0.0), planted, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("seed", range(5))
def test_non_negative_gains_are_the_best_of_their_kind(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pull = torch.randn(5, generator=generator, dtype=torch.float64)
    curvature, damage = positive(5, seed), positive(5, seed + 50)
    best = best_gains(pull, curvature, damage, ridge=0.0, non_negative=True)
    assert float(best.min()) >= 0
    assert float(best @ damage @ best) / 2 <= 1 + 1e-6
    for _ in range(300):
        other = (best + 0.3 * torch.randn(5, generator=generator, dtype=torch.float64)).clamp_min(0)
        other = other / max(1.0, float(other @ damage @ other) / 2) ** 0.5
        assert objective(other, pull, curvature) <= objective(best, pull, curvature) + 1e-3


def test_nothing_that_pulls_is_no_gain() -> None:
    assert not best_gains(torch.zeros(4), positive(4, 0), positive(4, 1), ridge=0.1).any()
    assert not best_gains(-torch.ones(4), torch.eye(4), torch.eye(4), ridge=0.1, non_negative=True).any()


def test_information_is_the_mean_over_items_of_the_outer_product_a_token() -> None:
    sketches = torch.randn(7, 3, 4, dtype=torch.float64)
    tokens = torch.tensor([5, 6, 7, 8, 9, 10, 11])
    mean = information(sketches, tokens)
    by_hand = sum(torch.outer(row, row) / n for rows, n in zip(sketches, tokens, strict=True) for row in rows) / 3 / 7
    torch.testing.assert_close(mean, by_hand)


def test_depth_bases_span_what_they_say() -> None:
    free = depth_basis(6, 2, range(2, 5), "free")
    assert free.shape == (12, 6)
    assert set(free.sum(1).nonzero().flatten().tolist()) == {4, 5, 6, 7, 8, 9}
    single = depth_basis(6, 2, range(6), "single")
    torch.testing.assert_close((single @ torch.tensor([0.5, -1.0]).double()).view(6, 2)[:, 1], -torch.ones(6).double())
    smooth = depth_basis(30, 1, range(30), "smooth")
    curve = smooth @ torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(curve.diff().abs().max()) < 0.5 * float(curve.max() - curve.min())


def test_the_ridge_grows_with_the_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(20, generator=generator, dtype=torch.float64)
    curvature = torch.eye(20).double()
    chosen = []
    for noise in (0.01, 10.0):
        rows = truth + noise * torch.randn(24, 20, generator=generator, dtype=torch.float64)
        ridge, predicted = choose_ridge([rows], [1.0], curvature, (1e-4 * curvature, 1e-4 * curvature))
        assert set(predicted) == set(RIDGES)
        chosen.append(ridge)
    assert chosen[0] < chosen[1]
