"""What differs between two checkpoints, recovered from their bytes alone."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from burnish.anatomy import Projection
from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.differences import changed_files, check_same_tensors, differing, owners
from burnish.artifacts.files import MARK, TRAINED, read_table
from burnish.errors import ModelError


@dataclass(frozen=True)
class RecoveredLayer:
    """One edited projection: the leading direction of its change and the gain along it."""

    layer: int
    tensor: str
    gain: float  # least-squares gain along the recovered direction
    asked: list[float] | None  # from the folder's own record, where it has one
    realised: list[float] | None
    share: float  # of the change's squared size that one direction explains
    direction: list[float] | None  # filled on request


@dataclass(frozen=True)
class Verification:
    """The comparison of two checkpoints."""

    edited: tuple[RecoveredLayer, ...]
    changed_elsewhere: tuple[str, ...]  # tensors or files that differ but are no attention output projection
    identical: int  # tensors with equal bytes
    cosine_between_layers: float  # smallest |cosine| of a recovered direction with the first
    trained: tuple[str, ...] = ()  # other tensors that the folder's record of a training names, with the bytes it names

    @property
    def clean(self) -> bool:
        """Nothing but attention output projections changed, or what the folder's own record of a training names."""
        return not self.changed_elsewhere


def verify(
    base: Checkpoint,
    other: Checkpoint,
    projections: Sequence[Projection],
    *,
    scales: dict[str, Tensor] | None = None,
    directions: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Verification:
    """Recovers direction and gain per layer.

    scales: effective weight [hidden] of the norm after a projection, by the projection's path (see `low_rank_edit`).
    Raises VerificationError when the checkpoints hold different tensors.
    """
    check_same_tensors(base, other)
    owned = owners(base, projections)
    record, recorded = _record(other.folder)
    edited: list[RecoveredLayer] = []
    vectors: list[Tensor] = []
    elsewhere: list[str] = []
    trained: list[str] = []
    changed = differing(base, other, progress)
    for name in changed:
        if name not in owned:
            as_recorded = name in recorded and recorded[name] == _sha256(other, name)
            (trained if as_recorded else elsewhere).append(name)
        elif len(base.tensors[name].shape) == 2:
            layer, vector = _recover(base, other, name, owned[name], record, scales or {}, directions)
            edited.append(layer)
            vectors.append(vector)
    elsewhere += [f.name for f in changed_files(base, other) if f.before is not None]
    cosines = [abs(float(v @ vectors[0])) for v in vectors]
    edited.sort(key=lambda layer: (layer.layer, layer.tensor))
    identical = len(base.tensors) - len(changed)
    return Verification(tuple(edited), tuple(elsewhere), identical, min(cosines, default=1.0), tuple(trained))


def _recover(
    base: Checkpoint,
    other: Checkpoint,
    name: str,
    projection: Projection,
    record: dict[str, dict[str, list[float]]],
    scales: dict[str, Tensor],
    directions: bool,
) -> tuple[RecoveredLayer, Tensor]:
    before, after = base.read(name).float(), other.read(name).float()
    if projection.layout == "in_out":
        before, after = before.T, after.T
    if projection.path in scales:
        scale = scales[projection.path].float()[:, None]
        before, after = scale * before, scale * after
    change = after - before  # [hidden, inputs]
    vector, size = _leading(change)
    # For one direction the change is a v (v^T W): its column space is v, and the gain the ratio along it.
    old = vector @ before.double()
    gain = float((vector @ change.double()) @ old / (old @ old))
    recorded = record.get(name, {})
    return (
        RecoveredLayer(
            layer=projection.layer,
            tensor=name,
            gain=gain,
            asked=recorded.get("asked"),
            realised=recorded.get("realised"),
            share=size / float((change.double() ** 2).sum()),
            direction=vector.tolist() if directions else None,
        ),
        vector,
    )


def _leading(change: Tensor, rounds: int = 12) -> tuple[Tensor, float]:
    """(unit vector [hidden], squared length of the change along it), by power iteration from a seeded start."""
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(change.shape[0], generator=generator)
    for _ in range(rounds):
        vector = torch.nn.functional.normalize(change @ (change.T @ vector), dim=0)
    return vector.double(), float((vector.double() @ change.double()).square().sum())


def _sha256(checkpoint: Checkpoint, name: str) -> str:
    return hashlib.sha256(checkpoint.read(name).flatten().view(torch.uint8).numpy().data).hexdigest()


def _record(folder: Path) -> tuple[dict[str, dict[str, list[float]]], dict[str, str]]:
    """(gains by tensor, hashes of the tensors that a training changed) as the folder itself says."""
    mark = folder / MARK
    if not mark.exists():
        return {}, {}
    stored = read_table(mark)
    try:
        gains = {g["tensor"]: {"asked": g["asked"], "realised": g["realised"]} for g in stored.get("gains", [])}
        return gains, dict(stored.get("sha256", {})) if stored.get("burnish") == TRAINED else {}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{mark} is damaged: {error!r}. Remove it to compare without the folder's own record."
        ) from error
