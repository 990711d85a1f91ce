"""How far a mean of paired differences could be chance."""

from dataclasses import dataclass

import torch
from torch import Tensor

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean over prompts with its 95 % bootstrap interval and the p-value of "the mean is zero"."""

    mean: float
    low: float
    high: float
    p: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"

    @property
    def short(self) -> str:
        """With three decimals: enough for effects."""
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def interval(values: Tensor, *, seed: int = 0) -> Interval:
    """values: [n], one difference a prompt. Percentile bootstrap over prompts (Efron 1979); two-sided sign-flip test.

    Raises ValueError without values, or with one that is not finite.
    """
    exact = values.double().flatten()
    if not len(exact) or not bool(torch.isfinite(exact).all()):
        raise ValueError("an interval needs at least one value, all of them finite")
    generator = torch.Generator().manual_seed(seed)
    drawn = exact[torch.randint(len(exact), (RESAMPLES, len(exact)), generator=generator)].mean(1)
    signs = torch.randint(0, 2, (RESAMPLES, len(exact)), generator=generator).double() * 2 - 1
    flipped = (signs * exact).mean(1).abs()
    p = float(((flipped >= exact.mean().abs() - 1e-15).sum() + 1) / (RESAMPLES + 1))
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(exact.mean()), low, high, min(1.0, p), len(exact))


def interval_above(values: Tensor, randoms: Tensor, *, seed: int = 0) -> Interval:
    """Mean of `values` [m, n] above that of `randoms` [c, n]: m or c directions, measured on the same n pairs.

    Pairs are resampled together (percentile bootstrap). Other random directions would shift a little differently: to each
    resampled mean comes the standard error over directions, pooled over the sides that have several, times a draw of
    Student's t with their degrees of freedom; a bootstrap of a handful of directions would be too narrow. One direction
    alone (m = 1) is taken as given.
    p: twice the smaller share of resampled means on one side of zero.
    """
    generator = torch.Generator().manual_seed(seed)
    difference = values.double().mean(0) - randoms.double().mean(0)
    pairs = torch.randint(len(difference), (RESAMPLES, len(difference)), generator=generator)
    means = difference[pairs].mean(1)
    sides = [side.double().mean(1) for side in (values, randoms) if len(side) > 1]
    freedom = sum(len(side) - 1 for side in sides)
    if freedom:
        variance = sum(float((side - side.mean()).square().sum()) for side in sides) / freedom
        error = (variance * sum(1 / len(side) for side in sides)) ** 0.5
        means = means + error * _student_t(freedom, RESAMPLES, generator)
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(difference.mean()), low, high, min(1.0, 2 * (tail + 1) / (RESAMPLES + 1)), len(difference))


def _student_t(freedom: int, count: int, generator: torch.Generator) -> Tensor:
    """Draws of Student's t: a normal over the root of a mean of squared normals."""
    normal = torch.randn(freedom + 1, count, generator=generator, dtype=torch.float64)
    return normal[0] / normal[1:].square().mean(0).sqrt()


def holm(p_values: list[float]) -> list[float]:
    """p-values adjusted for testing several things at once (Holm 1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def separating_direction(positive: Tensor, negative: Tensor, *, shrinkage: float = 0.5) -> tuple[Tensor, float]:
    """(weights [features], bias) of a linear discriminant with shrunk covariance: the mean positive row scores +0.5, the mean
    negative row -0.5.

    positive, negative: [n, features]. The pooled covariance is mixed with its mean variance (Ledoit and Wolf 2004, with a
    fixed share), so that fewer rows than features do no harm.
    """
    means = positive.double().mean(0), negative.double().mean(0)
    centred = torch.cat([positive.double() - means[0], negative.double() - means[1]])
    covariance = centred.T @ centred / max(1, len(centred) - 2)
    ridge = covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    weights = torch.linalg.solve((1 - shrinkage) * covariance + shrinkage * ridge, means[0] - means[1])
    weights = weights / (weights @ (means[0] - means[1]))
    return weights, float(-weights @ (means[0] + means[1]) / 2)
