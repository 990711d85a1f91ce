"""Gains that gain most within a budget of damage.

Around gains `a0` the objective is taken as `J(a0) + g (a - a0) - 1/2 (a - a0)^T H (a - a0)` and the damage as `1/2 a^T F a`. `F`
is the Fisher information of the predictions on what should stay as it is (the second derivative of the mean KL divergence at
zero gains), divided by the budget, so that the limit is 1. `H` is the information on the answers aimed at, to which the
curvature of their log likelihood is close. The best gains within the limit solve

    (H + lambda F) a = g + H a0        with the smallest lambda >= 0 that keeps 1/2 a^T F a <= 1

(Lagrange). A ridge, in units of the mean diagonal, is added to both: gradients of few answers are noisy, and an information
of few rows takes untried combinations for free.
"""

import torch
from scipy.optimize import nnls
from torch import Tensor

SMALLEST_RIDGE = 1e-8  # keeps the factorisation of a singular information stable
HALVINGS = 60


def information(sketches: Tensor, tokens: Tensor) -> Tensor:
    """Fisher information per token, [n, n], the mean over items of each one's, as damage is a mean over prompts: sketches [items,
    sketches, n], whose mean outer product is the information summed over an item's tokens; tokens [items]."""
    rows = (sketches.double() / tokens.sqrt()[:, None, None]).flatten(0, 1)
    return rows.T @ rows / len(rows)


def ridged(matrix: Tensor, ridge: float) -> Tensor:
    """The matrix with `ridge` times its mean diagonal added to the diagonal."""
    raised = matrix.clone()
    raised.diagonal().add_(ridge * float(matrix.diagonal().mean()))
    return raised


def best_gains(pull: Tensor, curvature: Tensor, damage: Tensor, *, ridge: float, non_negative: bool = False) -> Tensor:
    """The gains [n] of the equation above, float64.

    pull: [n], `g + H a0`; curvature `H` and damage `F`: [n, n], positive semidefinite, the damage in budgets. Zeros where
    nothing pulls, or where nothing that pulls may be positive.
    """
    pull, curvature = pull.double(), ridged(curvature.double(), ridge)
    damage = ridged(damage.double(), ridge + SMALLEST_RIDGE)
    if not float(pull.abs().max()):
        return torch.zeros_like(pull)

    def solved(multiplier: float) -> Tensor:
        matrix = curvature + multiplier * damage
        if non_negative:
            return _non_negative(matrix, pull)
        gains: Tensor = torch.linalg.solve(matrix, pull)
        return gains

    def used(gains: Tensor) -> float:
        return float(gains @ damage @ gains) / 2

    low = 1e-9 * float(curvature.diagonal().mean() / damage.diagonal().mean() + pull.abs().max())
    if used(solved(low)) <= 1:
        return solved(low)
    high = low
    while used(solved(high)) > 1:
        high *= 16
    for _ in range(HALVINGS):  # in the logarithm, which the multiplier spans widely
        middle = (low * high) ** 0.5
        low, high = (middle, high) if used(solved(middle)) > 1 else (low, middle)
    return solved(high)


def _non_negative(matrix: Tensor, pull: Tensor) -> Tensor:
    """argmax of `pull a - 1/2 a^T matrix a` over `a >= 0`, as non-negative least squares in the factor of the matrix."""
    factor = torch.linalg.cholesky(matrix)  # matrix = factor factor^T
    target = torch.linalg.solve_triangular(factor, pull[:, None], upper=False)[:, 0]
    gains, _ = nnls(factor.T.numpy(), target.numpy())
    return torch.from_numpy(gains)


def depth_basis(layers: int, directions: int, window: range, shape: str, *, waves: int = 6) -> Tensor:
    """The gains [layers * directions, n] that each free number stands for.

    shape: "single", one number a direction in the whole window; "smooth", the first `waves` cosines over the window for each
    direction; else a number for every layer of the window and direction.
    """
    inside = torch.zeros(layers, len(window), dtype=torch.float64)
    inside[list(window), range(len(window))] = 1
    if shape == "single":
        curves = torch.ones(len(window), 1, dtype=torch.float64)
    elif shape == "smooth":
        at = (torch.arange(len(window), dtype=torch.float64) + 0.5) / len(window)
        curves = torch.cos(torch.pi * at[:, None] * torch.arange(min(waves, len(window))))
    else:
        curves = torch.eye(len(window), dtype=torch.float64)
    return torch.kron(inside @ curves, torch.eye(directions, dtype=torch.float64))


RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)
FOLDS = 6


def choose_ridge(
    rows: list[Tensor], weights: list[float], curvature: Tensor, damage: tuple[Tensor, Tensor], *, seed: int = 0
) -> tuple[float, dict[float, float]]:
    """The ridge whose gains, found on some rows, are predicted to gain most on the others; and every ridge's prediction.

    rows: gradients [n_i, n] of each aim's answers, weights: of the aims; damage: two independent estimates [n, n] of the
    information, one to find the gains with and one to scale them to the budget: what one estimate takes for free, the other
    charges for.
    """
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(r), generator=generator) for r in rows]
    predicted = dict.fromkeys(RIDGES, 0.0)
    folds = min(FOLDS, *(len(r) for r in rows))
    for fold in range(folds):
        out = [order[fold::folds] for order in orders]
        others = [torch.cat([order[f::folds] for f in range(folds) if f != fold]) for order in orders]
        fit, test = (
            torch.stack([w * r[i].mean(0) for r, w, i in zip(rows, weights, index, strict=True)]).sum(0)
            for index in (others, out)
        )
        fitting_damage, test_damage = damage if fold % 2 else damage[::-1]
        for ridge in RIDGES:
            gains = best_gains(fit, curvature, fitting_damage, ridge=ridge)
            gains = gains / max(1.0, float(gains @ test_damage @ gains) / 2) ** 0.5
            predicted[ridge] += float(test @ gains - gains @ curvature @ gains / 2) / folds
    return max(RIDGES, key=lambda ridge: predicted[ridge]), predicted
