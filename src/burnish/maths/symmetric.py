"""A symmetric edit and its directions.

`I + B^T diag(s) B` with free rows `B` [k, hidden] and fixed signs `s` is the same map as `I + V^T diag(a) V` with orthonormal
rows `V` and gains `a`: the eigenvectors and eigenvalues of `B^T diag(s) B`. The free form is what an optimiser likes (no
constraint, and a gain of zero is no special point); the second is the edit of `maths/gain.py`.
"""

import torch
from torch import Tensor

REMOVED = 0.95  # largest share that a direction may be turned down by: a component that is gone cannot be brought back


def signs(directions: int) -> Tensor:
    """One sign for each free row, [k]: every other one may only turn down."""
    return 1 - 2 * (torch.arange(directions) % 2).float()


def orthonormal_form(rows: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """Directions and gains of one layer's symmetric edit.

    Args:
        rows: free rows, [k, hidden].
        signs: +1 or -1 for each, [k].

    Returns:
        (orthonormal directions [k, hidden], gains [k]), float32, the largest gain first. A direction's largest coordinate is
        positive, so that the same edit is always written in the same way.
    """
    basis, triangle = torch.linalg.qr(rows.double().T)  # [hidden, k], [k, k]
    gains, mixing = torch.linalg.eigh(triangle * signs.double() @ triangle.T)
    order = gains.argsort(descending=True)
    directions = (basis @ mixing[:, order]).T
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return (directions * largest.sign()).float(), gains[order].float()


def shortened(rows: Tensor, signs: Tensor) -> Tensor:
    """The rows [..., k, hidden], those that turn down shortened so far that together they remove at most `REMOVED` of anything."""
    down = rows[..., signs < 0, :]
    if not down.shape[-2]:
        return rows
    removed = torch.linalg.eigvalsh(down @ down.mT)[..., -1]  # of the component that they turn down most
    cut = (REMOVED / removed.clamp_min(1e-12)).clamp_max(1).sqrt()
    return torch.where((signs < 0)[:, None], rows * cut[..., None, None], rows)
