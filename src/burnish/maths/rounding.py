"""Rounding an edited weight to its storage type without losing the gain.

In bfloat16 a small gain is less than half a unit in the last place of most elements, and round-to-nearest drops it
(asked 0.02, realised 28 % on random weights). Here each column is rounded row by row, largest coordinate of the
direction first, and the error made along the direction is carried into the next row (error feedback, as in
sigma-delta modulation): the column's component along the direction ends where it should, and no element moves by
more than about one unit in the last place of the column's larger elements.
"""

import torch
from torch import Tensor

from burnish.maths.gain import LowRankEdit


def round_along(exact: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounds `exact` [hidden, inputs] to `dtype` keeping `right @ exact` [k, inputs]; `right` is [k, hidden].

    Rows with no share in any direction are rounded to nearest. Returns a tensor of `dtype`.
    """
    if dtype == torch.float32:
        return exact.to(dtype)
    rounded = exact.to(dtype)
    coefficients = right.float()  # [k, hidden]
    sizes = coefficients.norm(dim=0)
    ranked = torch.argsort(sizes, descending=True, stable=True)
    order: list[int] = ranked[sizes[ranked] > 1e-3 * sizes.max()].tolist()
    if not order:
        return rounded
    # The rows outside `order` are already rounded; their error along the directions opens the account.
    outside = torch.ones(exact.shape[0], dtype=torch.bool)
    outside[order] = False
    carried = coefficients[:, outside] @ (exact[outside].float() - rounded[outside].float())  # [k, inputs]
    columns = coefficients.T.contiguous()  # [hidden, k]
    steps = columns / sizes.clamp_min(torch.finfo(torch.float32).tiny)[:, None] ** 2
    for row in order:
        target = exact[row] + steps[row] @ carried
        rounded[row] = target.to(dtype)
        carried += torch.outer(columns[row], exact[row] - rounded[row].float())
    return rounded


def realised_gain(before: Tensor, after: Tensor, edit: LowRankEdit) -> Tensor:
    """Gain realised per direction [k]: least squares of the change of the coordinates `R W` on the coordinates."""
    right = edit.right.float()
    old = (right @ before.float()).double()
    new = (right @ after.float()).double()
    return ((new - old) * old).sum(-1) / (old * old).sum(-1).clamp_min(torch.finfo(torch.float64).tiny)
