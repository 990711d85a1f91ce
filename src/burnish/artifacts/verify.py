"""What an audit says of a copy that Burnish made: gains beside the folder's own record, and whether anything else changed."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from burnish.artifacts.audit import Audit
from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.files import MARK, TRAINED, read_mark
from burnish.errors import ModelError


@dataclass(frozen=True)
class RecoveredLayer:
    """One edited projection."""

    layer: int
    tensor: str
    gains: tuple[float, ...]  # along the recovered directions, largest first; none where the change is not directional
    asked: list[float] | None  # from the folder's own record, where it has one
    realised: list[float] | None
    unexplained: float  # share of the change's squared size that gains along directions leave, rounding included


@dataclass(frozen=True)
class Verification:
    """The comparison of a model and its enhanced copy."""

    edited: tuple[RecoveredLayer, ...]
    changed_elsewhere: tuple[str, ...]  # tensors or files that differ but are no attention output projection
    identical: int  # tensors with equal bytes
    agreement: float | None  # of the recovered directions between layers, smallest |cosine|; None for fewer than two
    trained: tuple[str, ...] = ()  # other tensors that the folder's record of a training names, with the bytes it names

    @property
    def clean(self) -> bool:
        """Nothing but attention output projections changed, or what the folder's own record of a training names."""
        return not self.changed_elsewhere


def verification(audit: Audit, copy: Checkpoint) -> Verification:
    """Compares an audit with what the copy's folder says of itself. Raises ModelError for a damaged record."""
    gains, recorded = read_record(copy.folder)
    changed = [p for p in audit.projections if p.change.kind != "none"]
    asked = {tensor: wanted for tensor, (wanted, _) in gains.items()}
    realised = {tensor: reached for tensor, (_, reached) in gains.items()}
    edited = tuple(
        RecoveredLayer(
            p.layer, p.tensor, p.change.gains, asked.get(p.tensor), realised.get(p.tensor), p.change.residual
        )
        for p in changed
    )
    # Gains on a bias can be told only where they can be told on its weight.
    biases = {
        p.tensor.removesuffix("weight") + "bias"
        for p in audit.projections
        if p.change.kind not in ("none", "directional")
    }
    elsewhere = [t.name for t in audit.tensors if t.name not in biases]
    trained = tuple(name for name in elsewhere if name in recorded and recorded[name] == _sha256(copy, name))
    missing = [f.name for f in audit.files if f.before is not None]
    return Verification(
        edited,
        tuple(name for name in [*elsewhere, *missing] if name not in trained),
        audit.identical,
        audit.agreement,
        trained,
    )


def _sha256(checkpoint: Checkpoint, name: str) -> str:
    return hashlib.sha256(checkpoint.read(name).flatten().view(torch.uint8).numpy().data).hexdigest()


def read_record(folder: Path) -> tuple[dict[str, tuple[list[float], list[float]]], dict[str, str]]:
    """(asked and realised gains by tensor, hashes of the tensors that a training changed) as the folder itself says."""
    stored = read_mark(folder)
    try:
        gains = {g["tensor"]: (g["asked"], g["realised"]) for g in stored.get("gains", [])}
        return gains, dict(stored.get("sha256", {})) if stored.get("burnish") == TRAINED else {}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder / MARK} is damaged: {error!r}. Remove it to compare without the folder's own record."
        ) from error
