"""Taking vectors apart along named directions; how far single values stand out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from burnish.maths.statistics import unit


@dataclass(frozen=True)
class Parts:
    """A unit vector as a sum of named unit vectors and a rest."""

    cosines: Tensor  # [n]
    coefficients: Tensor  # [n], joint least squares
    unexplained: float  # share of the squared length that all of them together leave


def parts_of(vector: Tensor, named: Tensor) -> Parts:
    """Least squares of `vector` [hidden] on `named` [n, hidden], both scaled to unit length; float64.

    Named vectors that are alike share what they explain (the solution of smallest norm).
    """
    target, basis = unit(vector.double()), unit(named.double())
    coefficients = torch.linalg.pinv(basis.T) @ target
    remainder = target - coefficients @ basis
    return Parts(basis @ target, coefficients, float(remainder.square().sum()))


def kurtosis(values: Tensor) -> Tensor:
    """Fourth standardised moment along the last dimension: 3 for normal values, larger where a few stand out."""
    centred = values.double() - values.double().mean(-1, keepdim=True)
    return centred.pow(4).mean(-1) / centred.square().mean(-1).square().clamp_min(1e-300)
