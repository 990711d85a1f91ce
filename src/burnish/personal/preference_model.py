"""What choices say about coefficients: Bayesian logistic regression on differences of features.

Of two answers with features x_a and x_b, a is preferred with probability sigmoid(c . (x_a - x_b)) (Bradley and Terry
1952). The coefficients c have a Gaussian prior; their posterior is approximated by a Gaussian at its peak (Laplace;
MacKay 1992). The prior keeps the peak finite even where the choices are separable, and the log posterior is strictly
concave, so damped Newton steps find it. How wide the prior is, how strong tastes are at all, is not fixed either: a few
widths are averaged, each weighted by the evidence the choices give for it. Everything is float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor
from torch.nn.functional import logsigmoid

from burnish.personal.accuracy import Accuracy, accuracy

WIDTHS = (0.25, 0.5, 1.0, 2.0)  # of priors that are averaged: from hardly any taste to a decided one
NEWTON_STEPS = 100
FLAT = 1e-9  # largest component of a gradient at which the peak is reached
HELD_OUT = 100  # choices predicted from the others
NODES = 40  # of the quadrature over a Gaussian


@dataclass(frozen=True)
class Gaussian:
    """Coefficients with their uncertainty: a prior or a posterior."""

    mean: Tensor  # [d], float64
    covariance: Tensor  # [d, d], float64

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each coefficient, [d]."""
        return self.covariance.diagonal().sqrt()


def normal_prior(mean: Tensor, width: float) -> Gaussian:
    """N(mean, width^2 I); mean: [d]."""
    return Gaussian(mean.double(), width**2 * torch.eye(len(mean), dtype=torch.float64))


def learned(differences: Tensor, outcomes: Tensor, centre: Tensor) -> Gaussian:
    """The coefficients after choices, averaged over prior widths by their evidence (Hoeting et al. 1999).

    centre: [d], the mean of every prior. The mean and covariance are those of the mixture of the posteriors. Arguments
    and errors otherwise as of `posterior`.
    """
    fits = [posterior(differences, outcomes, normal_prior(centre, width)) for width in WIDTHS]
    weights = torch.tensor([evidence for _, evidence in fits], dtype=torch.float64).softmax(0)
    means = torch.stack([fit.mean for fit, _ in fits])
    mean = weights @ means
    apart = means - mean
    spread = torch.einsum("w,wi,wj->ij", weights, apart, apart)
    within = torch.einsum("w,wij->ij", weights, torch.stack([fit.covariance for fit, _ in fits]))
    return Gaussian(mean, within + spread)


def posterior(differences: Tensor, outcomes: Tensor, prior: Gaussian) -> tuple[Gaussian, float]:
    """(coefficients, log evidence) after choices under one prior, by the Laplace approximation.

    differences: [n, d], features of a minus features of b; outcomes: [n], 1 where a was preferred, 0 where b was, 0.5
    for no preference, which counts half for each side. Raises ValueError for shapes that do not fit, numbers that are
    not finite and outcomes outside [0, 1].
    """
    rows, wanted = _checked(differences, outcomes, prior)
    precision = torch.linalg.inv(prior.covariance)
    peak = prior.mean.clone()
    height = _height(rows, wanted, peak, prior.mean, precision)
    for _ in range(NEWTON_STEPS):
        slope = rows.T @ (wanted - (rows @ peak).sigmoid()) - precision @ (peak - prior.mean)
        if float(slope.abs().max()) < FLAT:
            break
        step = torch.linalg.solve(_curvature(rows, peak, precision), slope)
        size = 1.0
        while (reached := _height(rows, wanted, peak + size * step, prior.mean, precision)) < height and size > 1e-6:
            size /= 2
        peak, height = peak + size * step, reached
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(_curvature(rows, peak, precision)))
    evidence = height + 0.5 * float(torch.logdet(covariance) - torch.logdet(prior.covariance))
    return Gaussian(peak, covariance), evidence


def predicted(belief: Gaussian, differences: Tensor) -> Tensor:
    """Probability [n] that a is preferred, the uncertainty of the coefficients included.

    The mean of a logistic function over a Gaussian, in the probit approximation: sigmoid(m / sqrt(1 + pi v / 8))
    (MacKay 1992).
    """
    mean, variance = _utility(belief, differences)
    return (mean / (1 + math.pi * variance / 8).sqrt()).sigmoid()


def information(belief: Gaussian, differences: Tensor) -> Tensor:
    """Nats [n] that the answer to each pair is expected to tell about the coefficients.

    The mutual information H(E p) - E H(p) between the answer and the coefficients ("BALD", Houlsby et al. 2011). Under
    a Gaussian belief a pair depends on the coefficients only through their utility difference, a Gaussian of one
    dimension: both terms are integrals over it, taken by Gauss-Hermite quadrature.
    """
    mean, variance = _utility(belief, differences)
    nodes, weights = (torch.from_numpy(part).double() for part in hermegauss(NODES))
    chances = (mean[:, None] + variance.sqrt()[:, None] * nodes).sigmoid()
    weights = weights / weights.sum()
    return (_entropy(chances @ weights) - _entropy(chances) @ weights).clamp_min(0)


def propose(belief: Gaussian, features: Tensor, pairs: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The pair of candidates whose comparison tells most about the coefficients; the first of equals.

    features: [m, d] of the candidates; pairs: those that may be asked, at least one.
    """
    first, second = (torch.tensor(side) for side in zip(*pairs, strict=True))
    return pairs[int(information(belief, features[first] - features[second]).argmax())]


def foreseen(differences: Tensor, outcomes: Tensor, centre: Tensor) -> Accuracy | None:
    """Each of the last choices predicted from all the others (leave-one-out).

    Arguments as of `learned`. Ties are learned from and not counted. None without choices.
    """
    rows, wanted = differences.double(), outcomes.double()
    counted = [i for i in range(len(rows)) if float(wanted[i]) != 0.5][-HELD_OUT:]
    if not counted:
        return None
    right = 0.0
    for i in counted:
        others = torch.arange(len(rows)) != i
        utility = float(rows[i] @ learned(rows[others], wanted[others], centre).mean)
        right += 0.5 if utility == 0 else float((utility > 0) == (float(wanted[i]) > 0.5))
    return accuracy(right, len(counted))


def _checked(differences: Tensor, outcomes: Tensor, prior: Gaussian) -> tuple[Tensor, Tensor]:
    rows, wanted = differences.double(), outcomes.double()
    if rows.ndim != 2 or rows.shape != (len(wanted), len(prior.mean)):
        raise ValueError(
            f"differences must be [n, {len(prior.mean)}] and outcomes [n], got {tuple(rows.shape)} and {len(wanted)}"
        )
    if not bool(torch.isfinite(rows).all()) or not bool(((wanted >= 0) & (wanted <= 1)).all()):
        raise ValueError("differences must be finite and outcomes lie in 0..1")
    return rows, wanted


def _height(rows: Tensor, wanted: Tensor, at: Tensor, centre: Tensor, precision: Tensor) -> float:
    """Log likelihood plus log prior, without the prior's constant."""
    utility, off = rows @ at, at - centre
    fit = wanted * logsigmoid(utility) + (1 - wanted) * logsigmoid(-utility)
    return float(fit.sum() - 0.5 * off @ precision @ off)


def _curvature(rows: Tensor, at: Tensor, precision: Tensor) -> Tensor:
    """Minus the second derivative of the log posterior, [d, d]."""
    chance = (rows @ at).sigmoid()
    return (rows * (chance * (1 - chance))[:, None]).T @ rows + precision


def _utility(belief: Gaussian, differences: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [n] of the difference of utility."""
    rows = differences.double()
    return rows @ belief.mean, ((rows @ belief.covariance) * rows).sum(-1)


def _entropy(chance: Tensor) -> Tensor:
    """Nats of a yes-or-no answer."""
    return -(torch.xlogy(chance, chance) + torch.xlogy(1 - chance, 1 - chance))
