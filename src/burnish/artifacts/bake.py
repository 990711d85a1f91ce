"""The baked form: a copy of a checkpoint in which only the edited tensors differ.

Streams: files are cloned by the file system or copied by the kernel, and right behind the copy the touched tensors are
rewritten in place inside it, in their own type. The model is never loaded; memory is that of one projection. A killed
run goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from burnish.anatomy import LinearMap, Projection
from burnish.artifacts.checkpoint import DTYPES, Checkpoint
from burnish.artifacts.copying import FolderCopy, copied_bytes
from burnish.artifacts.files import MARK, check_absent, check_output, disk_errors, publish, stored_size
from burnish.artifacts.safetensors_header import StoredTensor
from burnish.errors import QuantisedModelError
from burnish.maths.gain import LowRankEdit, edit_weight
from burnish.maths.rounding import realised_gain, round_along
from burnish.steps import Progress

ROUNDED_IN_USE = ("bitnet", "fouroversix", "fp_quant")  # may store full weights and round them whenever they are used


@dataclass(frozen=True)
class TensorEdit:
    """One tensor of the checkpoint and its edit, which has rank 0 where there is only something to add."""

    name: str
    projection: Projection | LinearMap
    edit: LowRankEdit
    addition: tuple[Tensor, Tensor] | None = None  # B [outputs, r] and A [r, inputs]: B A is added to the edited weight

    @property
    def is_bias(self) -> bool:
        return self.name.endswith(".bias")


@dataclass(frozen=True)
class LayerGain:
    """What was asked of one projection and what its stored weights realise."""

    tensor: str
    layer: int
    asked: list[float]
    realised: list[float]


@dataclass(frozen=True)
class Baked:
    folder: Path
    gains: tuple[LayerGain, ...]
    bytes: int
    sha256: dict[str, str]  # of the edited tensors' bytes, by name


def tensor_edits(checkpoint: Checkpoint, edits: Iterator[tuple[Projection, LowRankEdit]]) -> list[TensorEdit]:
    """Finds the stored tensors (weights and biases) of each projection. Raises QuantisedModelError, ModelError."""
    return [
        TensorEdit(name, projection, edit)
        for projection, edit in edits
        for name in _stored_names(checkpoint, projection)
    ]


def check_editable(checkpoint: Checkpoint, projections: Sequence[Projection | LinearMap]) -> None:
    """Raises QuantisedModelError or ModelError when a projection's tensors cannot be edited in place."""
    for projection in projections:
        _stored_names(checkpoint, projection)


def _stored_names(checkpoint: Checkpoint, projection: Projection | LinearMap) -> list[str]:
    """The tensors of a projection, which are stored as they are used."""
    names = checkpoint.names_of(projection)
    beside = checkpoint.beside(names[0].removesuffix(".weight"))
    if beside or checkpoint.quantisation.get("quant_method") in ROUNDED_IN_USE:
        raise QuantisedModelError(
            f"'{names[0]}' is rounded again whenever the model runs ({', '.join(beside) or checkpoint.quantisation['quant_method']}), which "
            "would undo an edit of it. Write --form adapter instead, or pass the original (unquantised) weights."
        )
    return names


def bake(
    source: Checkpoint,
    out: Path,
    edits: Sequence[TensorEdit],
    about: dict[str, Any],
    extra: Callable[[Path, tuple[LayerGain, ...]], None] | None = None,
    *,
    overwrite: bool = False,
    copy: FolderCopy | None = None,
    progress: Progress | None = None,
) -> Baked:
    """Writes the folder `out`. about: stored in `burnish.json`; extra: writes further files (card, enhancement) into it.

    copy: one of this source to this output that has been started already. Raises OutputExistsError and DiskFullError before
    writing. A run killed earlier with the same `about` is resumed.
    """
    total = copied_bytes(source.folder)
    check_output(out, total, overwrite=overwrite, resumable=True)
    with disk_errors(out), copy or FolderCopy(source.folder, out) as copying:
        check_absent(out, overwrite=overwrite)  # another run may have finished since
        copying.claim(_hash({"source": source.fingerprint, "about": about}))
        copying.start()
        gains, hashes = _edit_behind(source, copying, edits, progress)
        mark = {
            **about,
            "source_fingerprint": source.fingerprint,
            "gains": [asdict(g) for g in gains],
            "sha256": hashes,
        }
        partial = copying.partial
        (partial / MARK).write_text(json.dumps(mark, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if extra is not None:
            extra(partial, gains)
        copying.journal.path.unlink()
        publish(partial, out)
    return Baked(out, gains, stored_size(out), hashes)


def _hash(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _edit_behind(
    source: Checkpoint, copying: FolderCopy, edits: Sequence[TensorEdit], progress: Progress | None
) -> tuple[tuple[LayerGain, ...], dict[str, str]]:
    """Rewrites each edited tensor as soon as its bytes are in place."""
    in_file_order = sorted(edits, key=lambda e: (source.tensors[e.name].file, source.tensors[e.name].start))
    done: dict[str, dict[str, Any]] = {}
    with _one_thread():
        for number, item in enumerate(in_file_order, 1):
            finished = copying.journal.done.get(f"edit {item.name}")
            if finished is None:
                finished = _edit(source, item, copying)
                if finished is None:
                    break  # the copy stopped: `finish` says why
                copying.journal.mark(f"edit {item.name}", finished)
            done[item.name] = finished
            if progress is not None:
                progress("writing", number, len(edits))
    copying.finish()
    gains = [
        LayerGain(e.name, e.projection.layer, done[e.name]["asked"], done[e.name]["realised"])
        for e in edits
        if not e.is_bias and e.edit.rank
    ]
    return tuple(gains), {e.name: done[e.name]["sha256"] for e in edits}


@contextmanager
def _one_thread() -> Iterator[None]:
    """The other core copies: threads that wait for each other beside it cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _edit(source: Checkpoint, item: TensorEdit, copying: FolderCopy) -> dict[str, Any] | None:
    """Edits one tensor inside the copy; None when the copy stopped before it was there."""
    stored = source.tensors[item.name]
    before = source.read(item.name)
    old = oriented(before, item.projection)
    exact = edit_weight(old, item.edit)
    added = None if item.addition is None else item.addition[0].float() @ item.addition[1].float()
    if added is not None:
        exact += added
    new = round_along(exact, _held(item), before.dtype)
    data = oriented(new, item.projection).contiguous().flatten().view(torch.uint8).numpy().data
    if not copying.wait_for(stored.file, stored.end):
        return None
    _overwrite(copying.partial, stored, data)
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "asked": None if item.is_bias else asked_gains(item.edit),
        "realised": None if item.is_bias else _realised(old, new, added, item.edit),
    }


def _held(item: TensorEdit) -> Tensor:
    """The coordinates that rounding must keep, [k, hidden]: along the edit's directions, and in all that an addition writes.

    Without the latter a short training is lost: of a LoRA 0.02 % as large as a random weight, round-to-nearest in bfloat16
    keeps 14 %, and rounding along its eight columns 99.7 %.
    """
    if item.addition is None:
        return item.edit.right
    return torch.cat([item.edit.right.float(), torch.linalg.qr(item.addition[0].float()).Q.T])


def _realised(old: Tensor, new: Tensor, added: Tensor | None, edit: LowRankEdit) -> list[float]:
    """The gains of the edit alone: what was added to the weight besides is taken out first."""
    gains: list[float] = realised_gain(old, new if added is None else new.float() - added, edit).tolist()
    return gains


def oriented(tensor: Tensor, projection: Projection | LinearMap) -> Tensor:
    """A stored weight as [hidden, inputs], a bias as [hidden, 1]; the same turn leads back to the stored layout."""
    if tensor.ndim == 1:
        return tensor[:, None]
    return tensor if projection.layout == "out_in" else tensor.T


def asked_gains(edit: LowRankEdit) -> list[float]:
    """The gains of an edit: the diagonal of `R L` (V^+ D D^-1 V diag(a) = diag(a))."""
    return [round(float(g), 12) for g in torch.diagonal(edit.right @ edit.left)]


def _overwrite(partial: Path, stored: StoredTensor, data: memoryview) -> None:
    if len(data) != stored.end - stored.start or stored.dtype not in DTYPES:
        raise ValueError(f"{stored.name} changed size: {len(data)} bytes for {stored.end - stored.start}")
    with (partial / stored.file).open("r+b") as file:
        file.seek(stored.start)
        file.write(data)
