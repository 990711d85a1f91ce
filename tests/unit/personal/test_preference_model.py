"""Choices to coefficients: the peak, its curvature, what is worth asking, and what happens at the edges."""

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from burnish.personal.accuracy import accuracy
from burnish.personal.preference_model import (
    WIDTHS,
    Gaussian,
    foreseen,
    information,
    learned,
    normal_prior,
    posterior,
    predicted,
    propose,
)

D = 5
PRIOR = normal_prior(torch.zeros(D), 1.0)
ALL_PAIRS = list(combinations(range(D), 2))


def asked(count: int, taste: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random pairs and the choices of a person with this taste."""
    generator = torch.Generator().manual_seed(seed)
    rows = 1.4 * torch.randn(count, len(taste), generator=generator, dtype=torch.float64)
    return rows, (torch.rand(count, generator=generator) < (rows @ taste).sigmoid()).double()


def log_posterior(at: Tensor, rows: Tensor, outcomes: Tensor, prior: Gaussian) -> Tensor:
    chance = (rows @ at).sigmoid()
    off = at - prior.mean
    fit = outcomes * chance.log() + (1 - outcomes) * (1 - chance).log()
    return fit.sum() - 0.5 * off @ torch.linalg.inv(prior.covariance) @ off


def test_the_gradient_at_the_peak_is_zero_and_the_covariance_is_the_inverse_curvature() -> None:
    rows, outcomes = asked(30, torch.linspace(-1, 1, D, dtype=torch.float64))
    outcomes[:3] = 0.5
    prior = Gaussian(torch.full((D,), 0.3, dtype=torch.float64), torch.diag(torch.linspace(0.2, 2, D).double()))
    belief, _ = posterior(rows, outcomes, prior)
    at = belief.mean.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_posterior(at, rows, outcomes, prior), at)
    assert float(gradient.abs().max()) < 1e-8
    hessian = torch.func.hessian(lambda c: log_posterior(c, rows, outcomes, prior))(belief.mean)
    torch.testing.assert_close(belief.covariance, torch.linalg.inv(-hessian))


def test_no_choices_leave_the_prior() -> None:
    none = torch.zeros(0, D), torch.zeros(0)
    belief, _ = posterior(*none, PRIOR)
    torch.testing.assert_close(belief.mean, PRIOR.mean)
    torch.testing.assert_close(belief.covariance, PRIOR.covariance)
    centre = torch.linspace(-1, 1, D).double()
    torch.testing.assert_close(learned(*none, centre).mean, centre)


def test_choices_for_and_against_mirror_each_other() -> None:
    rows, outcomes = asked(20, torch.ones(D).double())
    one, other = (learned(rows, o, torch.zeros(D)) for o in (outcomes, 1 - outcomes))
    torch.testing.assert_close(one.mean, -other.mean)
    torch.testing.assert_close(one.covariance, other.covariance)


def test_a_tie_pulls_to_the_middle_and_still_informs() -> None:
    rows = torch.eye(2).double()[:1]
    prior = normal_prior(torch.tensor([1.0, 1.0]), 1.0)
    belief, _ = posterior(rows, torch.tensor([0.5]), prior)
    assert 0 < float(belief.mean[0]) < 1
    assert float(belief.mean[1]) == pytest.approx(1)
    assert float(belief.deviation[0]) < 1
    both, twice = (posterior(rows.repeat(2, 1), torch.tensor(o), prior)[0] for o in ([1.0, 0.0], [0.5, 0.5]))
    torch.testing.assert_close(both.mean, twice.mean)  # half for each side is one of each


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_separable_choices_stay_finite(size: float) -> None:
    rows = size * asked(40, torch.ones(D).double())[0]
    outcomes = (rows[:, 0] > 0).double()
    belief = learned(rows, outcomes, torch.zeros(D))
    assert bool(torch.isfinite(belief.mean).all() & torch.isfinite(belief.covariance).all())
    assert float(belief.mean.norm()) < 4 * max(WIDTHS)
    assert float(belief.mean[0]) > 0
    assert bool((torch.linalg.eigvalsh(belief.covariance) > 0).all())


def test_the_width_follows_how_strong_tastes_are() -> None:
    centre = torch.zeros(D)
    for strength, width in ((0.05, WIDTHS[0]), (2.0, WIDTHS[-1])):
        rows = asked(64, strength * torch.ones(D).double(), seed=3)
        belief_mean = learned(*rows, centre).mean
        fits = {w: posterior(*rows, normal_prior(centre, w))[0] for w in (WIDTHS[0], WIDTHS[-1])}
        apart = {w: float((fit.mean - belief_mean).norm()) for w, fit in fits.items()}
        assert min(apart, key=lambda w: apart[w]) == width


def test_predictions_and_information_are_those_of_samples_of_the_belief() -> None:
    belief, _ = posterior(*asked(10, torch.ones(D).double()), PRIOR)
    new = asked(20, torch.ones(D).double(), seed=1)[0]
    factor = torch.linalg.cholesky(belief.covariance)
    drawn = belief.mean + torch.randn(40000, D, generator=torch.Generator().manual_seed(0)).double() @ factor.T
    chance = (drawn @ new.T).sigmoid()
    assert float((predicted(belief, new) - chance.mean(0)).abs().max()) < 0.02

    def entropy(p: Tensor) -> Tensor:
        return -(p * p.log() + (1 - p) * (1 - p).log())

    exact = entropy(chance.mean(0)) - entropy(chance).mean(0)
    torch.testing.assert_close(information(belief, new), exact, atol=3e-3, rtol=0.02)
    assert float(information(belief, torch.zeros(1, D))) < 1e-12


def test_the_pair_along_what_is_not_known_is_proposed_and_none_whose_outcome_is_certain() -> None:
    covariance = torch.diag(torch.tensor([0.01, 0.01, 1.0, 0.01, 0.01]).double())
    belief = Gaussian(torch.zeros(D).double(), covariance)
    candidates = torch.eye(D).double()
    candidates[2] *= 2
    assert 2 in propose(belief, candidates, ALL_PAIRS)
    assert propose(belief, candidates, [(0, 1), (3, 4)]) == (0, 1)  # the first of equals
    sure = Gaussian(torch.tensor([5.0, 0.0]).double(), torch.diag(torch.tensor([0.3, 0.3]).double()))
    candidates = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    assert propose(sure, candidates, [(0, 1), (0, 2)]) == (0, 2)


def test_tastes_are_recovered_from_simulated_choices() -> None:
    taste = torch.tensor([1.5, -1.0, 0.5, 0.0, 0.0]).double()
    errors = [float((learned(*asked(n, taste, seed=7), torch.zeros(D)).mean - taste).norm()) for n in (4, 32, 512)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.5
    belief = learned(*asked(512, taste, seed=7), torch.zeros(D))
    assert bool(((belief.mean - taste).abs() < 4 * belief.deviation).all())


def test_asking_what_tells_most_learns_faster_than_asking_at_random() -> None:
    taste = torch.tensor([1.5, -1.0, 0.5, 0.0, 0.8]).double()
    error = {"random": 0.0, "proposed": 0.0}
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        candidates = torch.randn(16, D, generator=generator).double()
        for way in error:
            rows, outcomes = torch.zeros(0, D).double(), torch.zeros(0).double()
            for _ in range(12):
                pair = tuple(torch.randperm(16, generator=generator)[:2].tolist())
                if way == "proposed":
                    pair = propose(
                        learned(rows, outcomes, torch.zeros(D)), candidates, list(combinations(range(16), 2))
                    )
                row = candidates[pair[0]] - candidates[pair[1]]
                answer = (torch.rand(1, generator=generator) < (row @ taste).sigmoid()).double()
                rows, outcomes = torch.cat([rows, row[None]]), torch.cat([outcomes, answer])
            error[way] += float((learned(rows, outcomes, torch.zeros(D)).mean - taste).norm())
    assert error["proposed"] < error["random"]


def test_held_out_choices_are_predicted_where_there_is_a_taste_and_not_where_there_is_none() -> None:
    zero = torch.zeros(D)
    decided: Any = foreseen(*asked(60, 3 * torch.ones(D).double()), zero)
    nothing: Any = foreseen(*asked(60, torch.zeros(D).double(), seed=4), zero)
    assert decided.low > 0.6
    assert nothing.low < 0.5 < nothing.high


def test_ties_are_not_predicted() -> None:
    rows, outcomes = asked(6, torch.ones(D).double())
    outcomes[:2] = 0.5
    prediction: Any = foreseen(rows, outcomes, torch.zeros(D))
    assert prediction.asked == 4
    assert foreseen(rows, torch.full((6,), 0.5), torch.zeros(D)) is None
    alone: Any = foreseen(rows[:1], torch.ones(1), torch.zeros(D))
    assert alone.share == 0.5  # nothing to predict from


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"), [(0, 10, 0.0, 0.2775), (8, 10, 0.4902, 0.9433), (10, 10, 0.7225, 1.0)]
)
def test_wilson_intervals_are_the_published_ones(right: int, asked: int, low: float, high: float) -> None:
    share = accuracy(right, asked)
    assert (share.low, share.high) == pytest.approx((low, high), abs=2e-4)


@pytest.mark.parametrize(
    ("rows", "outcomes"),
    [
        (torch.zeros(2, 3), torch.ones(2)),
        (torch.zeros(2, D), torch.ones(3)),
        (torch.full((1, D), math.nan), torch.ones(1)),
        (torch.zeros(1, D), torch.full((1,), 1.5)),
        (torch.zeros(1, D), torch.full((1,), math.nan)),
    ],
)
def test_what_is_no_choice_is_refused(rows: Tensor, outcomes: Tensor) -> None:
    with pytest.raises(ValueError, match="differences must be"):
        posterior(rows, outcomes, PRIOR)
