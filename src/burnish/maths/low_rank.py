"""The operator behind the difference of two weights.

A directional edit is `W' = (I + M) W` with `M = V diag(a) V^+` (`maths/gain.py`): the change `M W` has the column space of
`V`, and what it takes from `W` lies in the span of `V` as well. So with `U` an orthonormal basis of the change's columns,
`U^T (W' - W) = K (U^T W)` for some small `K`, whose eigenvalues are the gains and whose eigenvectors, turned back by `U`, are
the directions. Another change of low rank, a merged LoRA say, adds rows of its own, and no `K` explains them. A norm `D`
after the projection is taken out first: with `D W` for `W`, the edit `I + D^-1 M D` becomes `I + M`.

Both weights are rounded to their number type, so the change is of full rank. A singular value counts when it is above what
rounding can cause. A rounding error has the variance `step^2 / 12`, and the largest singular value of a matrix of
independent errors is about its largest row norm plus its largest column norm (Bandeira and van Handel 2016, "Sharp
nonasymptotic bounds on the norm of random matrices with independent entries", theorem 3.1).
"""

from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Literal

import torch
from torch import Tensor

from burnish.maths.gain import LowRankEdit

Kind = Literal["none", "rounding", "directional", "low-rank", "dense"]
LARGEST = 64  # the largest rank looked for; in small matrices a quarter of their smaller side
SPARE = 8  # columns beyond it: they show whether the rest is rounding
START = 8  # columns of the first try
ROUNDS = 2  # of subspace iteration
# Times the expected rounding that is still called rounding. Measured with edits of real weights: the norm up to 1.4 times,
# the squared size up to 1.5; more in tiny matrices and along directions of a few coordinates.
MARGIN = 2.0
ARITHMETIC = 1e-6  # relative error of products in float32
MISFIT = 0.25  # of the squared size along the directions, that K may leave; a LoRA leaves at least about 0.75
SLACK = 0.01  # of the change's squared size, that a directional edit may leave beyond rounding; `residual` tells
TIED = 0.05  # of the largest gain: closer ones cannot be told apart, or come out as a pair with a small imaginary part
INSIDE = 0.05  # of a known direction's length: with less outside the change's column space, it lies in it
BLOCK = 1 << 22  # elements whose rounding steps are held at a time


@dataclass(frozen=True, eq=False)
class Change:
    """What was done to one weight.

    kind: "none"; "rounding", no more than the number type explains; "directional", gains along directions; "low-rank", but
    no gains along directions; "dense", of a higher rank than was looked for.
    """

    kind: Kind
    rank: int | None  # significant singular values; None for a dense change
    looked_for: int  # the largest rank that would have been found
    relative_size: float  # |W' - W| / |W|, Frobenius; infinite where W is zero
    residual: float  # share of the change's squared size that gains along directions leave at best, rounding included
    rounding: float  # share of the change's squared size that rounding alone is expected to make
    gains: tuple[float, ...]  # of a directional change, largest first
    directions: Tensor  # [hidden, gains], unit columns, each with its largest coordinate positive
    operator: LowRankEdit | None  # M of a directional change, on writes carried through the norm
    held: bool = False  # explained only with known directions that the edit held still


def unchanged(hidden: int, inputs: int) -> Change:
    """The entry of a weight [hidden, inputs] whose bytes are equal."""
    looked_for = max(1, min(LARGEST, hidden // 4, inputs // 4))
    return Change("none", 0, looked_for, 0.0, 0.0, 0.0, (), torch.empty(hidden, 0), None)


def analyse_change(
    before: Tensor, after: Tensor, *, norm_weight: Tensor | None = None, held: Tensor | None = None
) -> Change:
    """Finds what turned `before` into `after`: weights [hidden, inputs], with the values that are stored.

    norm_weight: [hidden], the effective weight of a norm between the projection and the residual stream. held: [hidden, m],
    known directions. One with gain 0 leaves no trace in the change's columns but bends what the others take from `W`
    (`low_rank_edit`); they are looked at only where the change cannot be explained without them. Raises ValueError for values
    that are not finite.

    Directions of equal gain are arbitrary within their span: compare spans, not vectors.
    """
    old, change = _carried(before, after, norm_weight)
    before_size, size = _energy(old), _energy(change)
    if not isfinite(before_size + size):
        raise ValueError("a weight holds values that are not finite")
    nothing = unchanged(*change.shape)
    if size == 0:
        return nothing
    noise, noise_size = _rounding(after, norm_weight)
    seen = replace(
        nothing,
        relative_size=(size / before_size) ** 0.5 if before_size else inf,
        rounding=min(1.0, noise_size / size),
        residual=1.0,
    )
    floor = max(MARGIN * noise, ARITHMETIC * size**0.5)
    basis, values = _column_space(change, seen.looked_for, floor)  # U [hidden, rank]
    if len(values) > seen.looked_for:  # under the edit, if it is one, lies a change of full rank
        floor = max(floor, MARGIN * float(values[-1]))
    shares = basis.T @ change  # U^T (W' - W), [rank, inputs]
    outside = _energy(change.addmm_(basis, shares, alpha=-1))
    tolerance = MARGIN * noise_size + ARITHMETIC**2 * size
    for known in [None] if held is None else [None, held]:
        fitted = _directional(basis, old, shares, floor, known)
        if fitted is None:
            continue
        seen = replace(seen, residual=min(seen.residual, (fitted.left + outside) / size))
        if fitted.misfit <= MISFIT and fitted.left + outside <= max(tolerance, SLACK * size):
            return replace(
                seen,
                kind="directional",
                rank=len(fitted.gains),
                gains=fitted.gains,
                directions=fitted.directions,
                operator=fitted.operator,
                held=known is not None,
            )
    rank = basis.shape[1]
    if rank > seen.looked_for or outside > tolerance:
        return replace(seen, kind="dense", rank=None)
    return replace(seen, kind="low-rank" if rank else "rounding", rank=rank)


def follows(change: Change, before: Tensor, after: Tensor, norm_weight: Tensor | None = None) -> bool:
    """Whether a bias [hidden] was changed as its weight was: by M, to within rounding. Without an M: whether it stayed."""
    old, moved = _carried(before[:, None], after[:, None], norm_weight)
    if change.operator is None:
        return not bool(moved.any())
    expected = change.operator.left.float() @ (change.operator.right.float() @ old)
    noise_size = _rounding(after[:, None], norm_weight)[1]
    allowed = MARGIN**2 * noise_size + SLACK * _energy(expected)
    return _energy(moved - expected) <= allowed


def equal_gain_spans(change: Change) -> list[Tensor]:
    """Orthonormal bases [hidden, m] of what a directional change goes along: a direction, or the span of several whose gains
    are equal to within noise."""
    order = sorted(range(len(change.gains)), key=lambda i: change.gains[i])
    tie = TIED * max(map(abs, change.gains), default=0.0)
    groups: list[list[int]] = []
    for i in order:
        if groups and change.gains[i] - change.gains[groups[-1][-1]] <= tie:
            groups[-1].append(i)
        else:
            groups.append([i])
    return [torch.linalg.qr(change.directions[:, group]).Q for group in groups]


def _carried(before: Tensor, after: Tensor, norm_weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """What is written to the residual stream before, and its change, in float32. Subtracted first: scaling rounds."""
    old = before.to(torch.float32, copy=True)
    change = after.float() - old
    if norm_weight is not None:
        scale = norm_weight.float()[:, None]
        old.mul_(scale)
        change.mul_(scale)
    return old, change


def _energy(matrix: Tensor) -> float:
    """Sum of squares."""
    return float(torch.linalg.vector_norm(matrix, dtype=torch.float64)) ** 2


def _rounding(weight: Tensor, norm_weight: Tensor | None) -> tuple[float, float]:
    """(largest singular value, sum of squares) to be expected of the rounding errors in a stored weight."""
    kind = torch.finfo(_number_type(weight))
    smallest = kind.smallest_normal * kind.eps
    columns = torch.zeros(weight.shape[1], dtype=torch.float64)
    rows = torch.zeros(weight.shape[0], dtype=torch.float64)
    height = max(1, BLOCK // weight.shape[1])
    for start in range(0, weight.shape[0], height):
        block = weight[start : start + height].float()
        steps = torch.exp2(torch.frexp(block)[1].float() - 1).mul_(kind.eps).clamp_min_(smallest)
        steps.masked_fill_(block == 0, smallest)
        if norm_weight is not None:
            steps *= norm_weight[start : start + height, None].float().abs()
        variances = steps.double().square_().div_(12)
        rows[start : start + height] = variances.sum(1)
        columns += variances.sum(0)
    return float(rows.max().sqrt() + columns.max().sqrt()), float(rows.sum())


def _number_type(weight: Tensor) -> torch.dtype:
    """The coarsest type that holds all the values: an edit made in bfloat16 may be stored in float32."""
    for kind in (torch.bfloat16, torch.float16):
        if torch.equal(weight.to(kind).to(weight.dtype), weight):
            return kind
    return torch.float32


def _column_space(change: Tensor, looked_for: int, floor: float) -> tuple[Tensor, Tensor]:
    """Singular values above `floor`, largest first, and their left vectors [hidden, rank]; of more than `looked_for`, some.

    Randomised subspace iteration from a seeded start (Halko, Martinsson and Tropp 2011, "Finding structure with randomness",
    algorithm 4.4), with twice the columns until the last one is below the floor.
    """
    most = min(looked_for + SPARE, *change.shape)
    columns = START
    while True:
        columns = min(columns, most)
        start = torch.randn(change.shape[1], columns, generator=torch.Generator().manual_seed(0))
        basis = torch.linalg.qr(change @ start).Q
        for _ in range(ROUNDS):
            basis = torch.linalg.qr(change @ torch.linalg.qr(change.T @ basis).Q).Q
        left, values, _ = torch.linalg.svd(basis.T @ change, full_matrices=False)
        significant = values > floor
        if columns == most or not bool(significant[-1]):
            return basis @ left[:, significant], values[significant]
        columns *= 2


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Gains along directions, fitted to a change."""

    operator: LowRankEdit
    gains: tuple[float, ...]
    directions: Tensor
    misfit: float  # share of the squared size along the directions that they leave
    left: float  # squared size that they leave inside the basis


def _directional(basis: Tensor, old: Tensor, shares: Tensor, floor: float, held: Tensor | None) -> _Fitted | None:
    """The gains along directions that explain most of the change's coordinates `shares` in `basis`, if there are any."""
    target = shares.double()
    explained = _fit(basis, old, target, held)[1]
    # Rounding may have put more into the basis: it takes nothing from W, and so its explained part is below the floor.
    left, values, _ = torch.linalg.svd(explained, full_matrices=False)
    significant = left[:, values > floor]
    if not significant.shape[1]:
        return None
    space, wanted = basis @ significant.float(), significant.T @ target
    operator, explained = _fit(space, old, wanted, held)
    missing = _energy(wanted - explained)
    gains, vectors = torch.linalg.eig(operator.right @ operator.left)  # of M on its own column space
    if bool(gains.imag.abs().max() > TIED * gains.abs().max()):
        return None  # it turns what it enlarges
    order = gains.real.abs().argsort(descending=True, stable=True)
    # The vectors of a complex pair are each other's conjugates: real and imaginary part span the same plane.
    real = torch.where(gains.imag < 0, vectors.imag, vectors.real)[:, order]
    return _Fitted(
        operator,
        tuple(gains.real[order].tolist()),
        _upright(operator.left @ real),
        missing / _energy(wanted),
        missing + _energy(target - significant @ wanted),
    )


def _fit(space: Tensor, old: Tensor, target: Tensor, held: Tensor | None) -> tuple[LowRankEdit, Tensor]:
    """(M = U K Q^T, K Q^T W), with K the least squares of `target` [rank, inputs] on Q^T W; Q: `space`, and what is held."""
    span = space if held is None else _with(space, held)
    coordinates = (span.T @ old).double()  # [m, inputs]
    small = torch.linalg.lstsq(coordinates.T, target.T).solution.T  # K [rank, m]
    return LowRankEdit(space.double(), small @ span.T.double()), small @ coordinates


def _with(basis: Tensor, held: Tensor) -> Tensor:
    """An orthonormal basis [hidden, m] of both, without what of `held` lies in `basis` already."""
    outside = held.float() - basis @ (basis.T @ held.float())
    left, values, _ = torch.linalg.svd(outside, full_matrices=False)
    return torch.cat([basis, left[:, values > INSIDE]], 1)


def _upright(columns: Tensor) -> Tensor:
    """Unit columns, each with its largest coordinate positive: the sign of an eigenvector means nothing."""
    largest = columns.gather(0, columns.abs().argmax(0, keepdim=True))
    upright: Tensor = columns * largest.sign() / columns.norm(dim=0)
    return upright.float()
