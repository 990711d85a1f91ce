"""What was done to a model, from its bytes and those of its base alone: one projection at a time, no model is loaded."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from burnish.anatomy import Projection
from burnish.artifacts.bake import oriented
from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.differences import (
    ChangedFile,
    ChangedTensor,
    changed_files,
    check_same_tensors,
    differing,
    measure,
    owners,
)
from burnish.errors import ModelError
from burnish.maths.low_rank import MARGIN, Change, Kind, analyse_change, follows, unchanged
from burnish.steps import Progress

AuditKind = Kind | Literal["identical", "elsewhere", "mixed"]
SEEN = 1e-6  # share of a change's squared size below which what is left is not worth a word: float32 arithmetic
SAME = 0.99  # |cosine| from which directions of different layers are called the same


@dataclass(frozen=True, eq=False)
class AuditedProjection:
    """One attention output projection."""

    layer: int
    tensor: str  # of its weight
    change: Change
    bias_follows: bool | None  # whether its bias was changed by the same operator; None without a bias


@dataclass(frozen=True, eq=False)
class Audit:
    """The comparison of two checkpoints of the same shape."""

    projections: tuple[AuditedProjection, ...]  # every attention output projection, by layer
    tensors: tuple[ChangedTensor, ...]  # others that differ; biases that do not follow their weights are among them
    files: tuple[ChangedFile, ...]  # other than weights
    identical: int  # tensors with equal bytes
    agreement: float | None  # between layers: smallest |cosine| of a direction with the span of the widest layer's

    @property
    def kind(self) -> AuditKind:
        """What was done to the projections; "elsewhere" when they are untouched and something else is not."""
        kinds = {p.change.kind for p in self.projections} - {"none"}
        if len(kinds) > 1:
            kinds.discard("rounding")  # in single layers, that is an edit too small to be seen
        if "directional" not in kinds and "dense" in kinds:
            return "dense"  # a light fine-tune rises above rounding in a few dimensions of some layers only
        if kinds:
            return kinds.pop() if len(kinds) == 1 else "mixed"
        return "elsewhere" if self.tensors or self.files else "identical"

    @property
    def summary(self) -> str:
        """One sentence."""
        match self.kind:
            case "directional":
                text = f"a directional edit: {self._directional()}"
            case "low-rank":
                text = (
                    f"a low-rank change, but no gains along directions (a merged LoRA, for example): {self._low_rank()}"
                )
            case "dense":
                text = f"not a low-rank edit: {self._dense()}"
            case "mixed":
                text = f"a mixed change: {self._mixed()}"
            case "rounding":
                text = "the attention output projections differ by no more than rounding to the number type"
            case "elsewhere":
                text = "no attention output projection changed"
            case _:
                text = "identical: every tensor and every file is the same"
        return text + self._elsewhere()

    def of(self, kind: str) -> list[AuditedProjection]:
        """The projections changed in one way."""
        return [p for p in self.projections if p.change.kind == kind]

    def _directional(self) -> str:
        projections = self.of("directional")
        ranks = sorted({len(p.change.gains) for p in projections})
        gains = [gain for p in projections for gain in p.change.gains]
        least, most = f"{min(gains):.2f}", f"{max(gains):.2f}"
        text = _count(ranks[0], "direction") if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]} directions"
        text += f" in {_count(len({p.layer for p in projections}), 'layer')}"
        text += f", gain {least}" if least == most else f", gains {least} to {most}"
        if self.agreement is not None:
            same = "the same" if self.agreement > SAME else "not the same"
            text += f", {same} in all of them (|cosine| at least {self.agreement:.2f})"
        rough = sum(p.change.residual > MARGIN * p.change.rounding for p in projections if p.change.residual > SEEN)
        text += f"; in {_count(rough, 'projection')} more is left than rounding explains" if rough else ""
        small = len(self.of("rounding"))
        return text + (f"; {_count(small, 'projection')} changed by no more than rounding" if small else "")

    def _low_rank(self) -> str:
        ranks = sorted({p.change.rank or 0 for p in self.of("low-rank")})
        rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        return f"{rank} in {_count(len(self.of('low-rank')), 'projection')}"

    def _dense(self) -> str:
        changes = [p.change for p in self.of("dense")]
        few = len(self.of("low-rank"))
        text = f", and {_count(few, 'projection')} in fewer" if few else ""
        return (
            f"{_count(len(changes), 'projection')} changed in more than {min(c.looked_for for c in changes)} dimensions, the most by "
            f"{max(c.relative_size for c in changes):.2%} of its size{text}"
        )

    def _mixed(self) -> str:
        counts = Counter(p.change.kind for p in self.projections if p.change.kind != "none")
        return ", ".join(f"{_count(count, 'projection')} {kind}" for kind, count in sorted(counts.items()))

    def _elsewhere(self) -> str:
        parts = []
        if self.tensors:
            sizes = [t.relative_size for t in self.tensors if t.relative_size is not None]
            largest = f" (the most by {max(sizes):.2%} of its size)" if sizes else ""
            parts.append(_count(len(self.tensors), "other tensor") + largest)
        if self.files:
            parts.append(_count(len(self.files), "file"))
        text = f"; also changed: {' and '.join(parts)}" if parts else ""
        left = sum(p.bias_follows is False for p in self.projections)
        return text + (f"; in {_count(left, 'projection')} the bias does not follow the weight" if left else "")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def audit(
    base: Checkpoint,
    other: Checkpoint,
    projections: Sequence[Projection],
    *,
    scales: Mapping[str, Tensor] | None = None,
    known: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Finds out what was done to every attention output projection, and what else differs.

    scales: effective weight [hidden] of the norm after a projection, by the projection's path. known: vectors [layers, hidden]
    by name, looked at only where an edit may have held some of them still (see `analyse_change`). Memory is that of one
    projection. Raises VerificationError when the checkpoints hold different tensors, QuantisedModelError for packed
    projections, ModelError for damaged files.
    """
    check_same_tensors(base, other)
    owned = owners(base, projections)
    changed = set(differing(base, other, progress))
    biases = {projection.path: name for name, projection in owned.items() if _is_bias(base, name)}
    weights = {name: projection for name, projection in owned.items() if not _is_bias(base, name)}
    entries: list[AuditedProjection] = []
    explained = set(weights)
    for name, projection in weights.items():
        scale = (scales or {}).get(projection.path)
        change = unchanged(projection.outputs, projection.inputs)
        if name in changed:
            held = [vectors[projection.layer] for vectors in (known or {}).values()]
            change = _change(base, other, name, projection, scale, torch.stack(held, 1) if held else None)
        bias = biases.get(projection.path)
        moved = None if bias is None else follows(change, base.read(bias), other.read(bias), scale)
        if bias is not None and moved:
            explained.add(bias)
        entries.append(AuditedProjection(projection.layer, name, change, moved))
        if progress is not None:
            progress("analysing", len(entries), len(weights))
    return Audit(
        projections=tuple(sorted(entries, key=lambda entry: (entry.layer, entry.tensor))),
        tensors=tuple(measure(base, other, name) for name in sorted(changed - explained)),
        files=changed_files(base, other),
        identical=len(base.tensors) - len(changed),
        agreement=_agreement([entry.change for entry in entries]),
    )


def _change(
    base: Checkpoint, other: Checkpoint, name: str, projection: Projection, scale: Tensor | None, held: Tensor | None
) -> Change:
    old, new = (oriented(checkpoint.read(name), projection) for checkpoint in (base, other))
    try:
        return analyse_change(old, new, norm_weight=scale, held=held)
    except ValueError as error:
        raise ModelError(f"'{name}' cannot be compared: {error}. Pass an undamaged copy of both models.") from error


def _is_bias(checkpoint: Checkpoint, name: str) -> bool:
    return len(checkpoint.tensors[name].shape) == 1


def _agreement(changes: Sequence[Change]) -> float | None:
    """The smallest cosine of a layer's directions with the span of the first layer's; None for fewer than two."""
    spans = [torch.linalg.qr(c.directions).Q for c in changes if c.kind == "directional"]
    if len(spans) < 2:
        return None
    widest = max(spans, key=lambda span: span.shape[1])
    return min(float(torch.linalg.matrix_norm(widest.T @ span, ord=-2)) for span in spans)
