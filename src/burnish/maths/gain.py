"""The one definition of the edit.

Let `y = W x (+ b)` be what an attention block adds to the residual stream and `V` the directions (unit columns).
The edited block adds

    y' = (I + L R) y        with  L = D^-1 V diag(a),  R = V^+ D

where `a` are the gains, `V^+` the pseudo-inverse and `D` the diagonal of the norm that follows the projection (the
identity for most families). The coordinate of the write along each direction is then multiplied by exactly `1 + a`,
and nothing outside the span of the directions moves. For one direction and no norm this is the published output-side
form `W' = W + a v v^T W` ("Directional Enhancement", 2025); the pseudo-inverse gives each of several non-orthogonal
directions its own gain, which `V diag(a) V^T` does not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowRankEdit:
    """The operator `I + left @ right` on the output of one projection."""

    left: Tensor  # [hidden, k]
    right: Tensor  # [k, hidden]

    @property
    def rank(self) -> int:
        return self.left.shape[1]


def low_rank_edit(directions: Tensor, gains: Tensor, norm_weight: Tensor | None = None) -> LowRankEdit:
    """Builds the edit of one layer.

    directions: [hidden, k] columns of unit length; gains: [k]; norm_weight: [hidden], the effective weight of a norm
    between the projection and the residual stream. Directions with gain 0 are kept: they still shape the pseudo-inverse,
    so that the others leave them alone. Computed in float64. Raises ValueError on shapes that do not fit.
    """
    if directions.ndim != 2 or gains.shape != directions.shape[1:]:
        raise ValueError(f"directions must be [hidden, k] and gains [k], got {directions.shape} and {gains.shape}")
    basis = directions.double()
    left = basis * gains.double()
    right = torch.linalg.pinv(basis)
    if norm_weight is not None:
        left = inverse(norm_weight.double())[:, None] * left
        right = right * norm_weight.double()
    return LowRankEdit(left, right)


def inverse(norm_weight: Tensor) -> Tensor:
    """`D^-1` of a norm's weight [hidden]. A dead coordinate cannot carry a direction: it stays zero instead of being divided by."""
    alive = norm_weight.abs() >= 1e-6 * norm_weight.abs().max()
    return torch.where(alive, 1 / torch.where(alive, norm_weight, torch.ones_like(norm_weight)), 0.0)


def edit_output(output: Tensor, edit: LowRankEdit) -> Tensor:
    """Live form: `y + L (R y)` for outputs [..., hidden], in the outputs' dtype (the small products in float32)."""
    left = edit.left.to(output.device, torch.float32)
    right = edit.right.to(output.device, torch.float32)
    change = (output.float() @ right.T) @ left.T
    return (output.float() + change).to(output.dtype)


def edit_rows(output: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Live form with an edit of its own for each row: outputs [rows, tokens, hidden], left [rows, hidden, k], right
    [rows, k, hidden]."""
    exact = output.float()
    return torch.baddbmm(exact, exact @ right.mT, left.mT).to(output.dtype)


def edit_weight(weight: Tensor, edit: LowRankEdit) -> Tensor:
    """Baked form of a weight [hidden, inputs]: `W + L (R W)`, float32, not yet rounded."""
    exact = weight.to(torch.float32, copy=True)
    return exact.addmm_(edit.left.float(), edit.right.float() @ exact)


def adapter_factors(weight: Tensor, edit: LowRankEdit) -> tuple[Tensor, Tensor]:
    """Adapter form: LoRA's `A = R W` [k, inputs] and `B = L` [hidden, k], so that `B A` is the baked change."""
    return edit.right.float() @ weight.float(), edit.left.float()
