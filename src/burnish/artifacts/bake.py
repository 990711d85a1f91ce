"""The baked form: a copy of a checkpoint in which only the edited tensors differ.

Streams: files are cloned by the file system or copied by the kernel, and the touched tensors are then rewritten in place
inside the copy, in their own type. The model is never loaded; memory is that of one projection. A `journal` in the
`.partial` folder says which files and tensors are done, so that a killed run goes on where it stopped.
"""

import functools
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from burnish.anatomy import Projection
from burnish.artifacts.checkpoint import DTYPES, Checkpoint, StoredTensor
from burnish.artifacts.files import check_output, disk_errors, partial_of, publish
from burnish.maths.gain import LowRankEdit, edit_weight
from burnish.maths.rounding import realised_gain, round_along

MARK = "burnish.json"  # in the output folder: what was done
JOURNAL = ".burnish-journal.json"
BLOCK = 64 << 20  # bytes a kernel copy moves at a time
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TensorEdit:
    """One tensor of the checkpoint and its edit."""

    name: str
    projection: Projection
    edit: LowRankEdit

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


def check_editable(checkpoint: Checkpoint, projections: Sequence[Projection]) -> None:
    """Raises QuantisedModelError or ModelError when a projection's tensors cannot be edited in place."""
    for projection in projections:
        _stored_names(checkpoint, projection)


def _stored_names(checkpoint: Checkpoint, projection: Projection) -> list[str]:
    """The tensors of a projection: its weight and, where it has one, its bias."""
    rows, columns = projection.outputs, projection.inputs
    shape = (rows, columns) if projection.layout == "out_in" else (columns, rows)
    names = [checkpoint.match(projection.path, "weight", shape)]
    return [*names, checkpoint.match(projection.path, "bias", (rows,))] if projection.bias else names


def bake(
    source: Checkpoint,
    out: Path,
    edits: Sequence[TensorEdit],
    about: dict[str, Any],
    extra: Callable[[Path, tuple[LayerGain, ...]], None] | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Baked:
    """Writes the folder `out`. about: stored in `burnish.json`; extra: writes further files (card, enhancement) into it.

    Raises OutputExistsError and DiskFullError before writing. A run killed earlier with the same `about` is resumed.
    """
    total = sum(p.stat().st_size for p in _files(source.folder))
    check_output(out, total, overwrite=overwrite, resumable=True)
    partial = partial_of(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(out):
        journal = Journal.open(partial, {"source": source.fingerprint, "about": about})
        gains, hashes = _copy_and_edit(source, partial, edits, journal, progress)
        mark = {
            **about,
            "source_fingerprint": source.fingerprint,
            "gains": [asdict(g) for g in gains],
            "sha256": hashes,
        }
        (partial / MARK).write_text(json.dumps(mark, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if extra is not None:
            extra(partial, gains)
        journal.path.unlink()
        publish(partial, out)
    return Baked(out, gains, total, hashes)


@dataclass
class Journal:
    """What of a partial output is finished."""

    path: Path
    key: str
    done: dict[str, Any]
    lock: Any = field(default_factory=threading.Lock)

    @staticmethod
    def open(partial: Path, identity: dict[str, Any]) -> "Journal":
        """Continues the partial output when it was made from the same inputs, else starts a clean one."""
        key = hashlib.sha256(json.dumps(identity, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
        path = partial / JOURNAL
        if path.exists():
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["key"] == key:
                return Journal(path, key, stored["done"])
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        journal = Journal(path, key, {})
        journal.mark("", None)
        return journal

    def mark(self, item: str, value: Any) -> None:
        with self.lock:
            if item:
                self.done[item] = value
            temporary = self.path.with_suffix(".new")
            temporary.write_text(json.dumps({"key": self.key, "done": self.done}), encoding="utf-8")
            temporary.replace(self.path)


def _files(folder: Path) -> list[Path]:
    """Everything in the model folder but version control and caches."""
    return sorted(
        p
        for p in folder.rglob("*")
        if p.is_file() and not any(part in (".git", ".cache", "__pycache__") for part in p.relative_to(folder).parts)
    )


@dataclass
class Copying:
    """How far a background copy has come, so that edits can follow right behind it."""

    moved: threading.Condition
    reached: dict[str, int]  # bytes in place, by file name
    stopped: bool = False

    def wait_for(self, file: str, end: int) -> None:
        """Returns once the first `end` bytes of `file` are in place, or the copy has stopped."""
        with self.moved:
            self.moved.wait_for(lambda: self.stopped or self.reached.get(file, 0) >= end)

    def report(self, file: str, reached: int) -> None:
        with self.moved:
            if self.stopped:
                raise InterruptedError("the edit stopped")
            self.reached[file] = reached
            self.moved.notify_all()

    def stop(self) -> None:
        with self.moved:
            self.stopped = True
            self.moved.notify_all()


def _copy_all(source: Path, partial: Path, journal: Journal, copying: Copying) -> None:
    for path in _files(source):
        name = str(path.relative_to(source))
        target = partial / name
        size = path.stat().st_size
        if journal.done.get(f"copy {name}") != size:
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(path, target, functools.partial(copying.report, name))
            journal.mark(f"copy {name}", size)
        copying.report(name, size)


def copy_file(source: Path, target: Path, report: Callable[[int], None] = lambda reached: None) -> None:
    """Copies inside the kernel (a clone where the file system can), following links; the copy is writable."""
    with source.open("rb") as reader, target.open("wb") as writer:
        left = os.fstat(reader.fileno()).st_size
        while left:
            try:
                moved = os.copy_file_range(reader.fileno(), writer.fileno(), min(BLOCK, left))
            except OSError:
                if left != os.fstat(reader.fileno()).st_size:
                    raise
                moved = 0
            if moved == 0:
                shutil.copyfileobj(reader, writer, BLOCK)
                return
            left -= moved
            report(os.fstat(reader.fileno()).st_size - left)


def _copy_and_edit(
    source: Checkpoint, partial: Path, edits: Sequence[TensorEdit], journal: Journal, progress: Progress | None
) -> tuple[tuple[LayerGain, ...], dict[str, str]]:
    """Copies in one thread and rewrites each edited tensor in another as soon as its bytes are in place."""
    copying = Copying(threading.Condition(), {})
    in_file_order = sorted(edits, key=lambda e: (source.tensors[e.name].file, source.tensors[e.name].start))
    done: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(1) as worker:
        copied = worker.submit(_copying, source.folder, partial, journal, copying)
        try:
            for number, item in enumerate(in_file_order, 1):
                finished = journal.done.get(f"edit {item.name}")
                done[item.name] = finished or _edit(source, partial, item, copying)
                if finished is None and not copying.stopped:
                    journal.mark(f"edit {item.name}", done[item.name])
                if progress is not None:
                    progress("writing", number, len(edits))
                if copied.done() and copied.exception() is not None:
                    break
        except BaseException:
            copying.stop()
            raise
        copied.result()
    gains = [
        LayerGain(e.name, e.projection.layer, done[e.name]["asked"], done[e.name]["realised"])
        for e in edits
        if done[e.name]["asked"] is not None
    ]
    return tuple(gains), {e.name: done[e.name]["sha256"] for e in edits}


def _copying(source: Path, partial: Path, journal: Journal, copying: Copying) -> None:
    try:
        _copy_all(source, partial, journal, copying)
    except BaseException:
        copying.stop()
        raise


def _edit(source: Checkpoint, partial: Path, item: TensorEdit, copying: Copying) -> dict[str, Any]:
    stored = source.tensors[item.name]
    before = source.read(item.name)
    old = oriented(before, item.projection)
    new = round_along(edit_weight(old, item.edit), item.edit.right, before.dtype)
    data = oriented(new, item.projection).contiguous().flatten().view(torch.uint8).numpy().data
    copying.wait_for(stored.file, stored.end)
    if not copying.stopped:
        _overwrite(partial, stored, data)
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "asked": None if item.is_bias else _asked(item.edit),
        "realised": None if item.is_bias else realised_gain(old, new, item.edit).tolist(),
    }


def oriented(tensor: Tensor, projection: Projection) -> Tensor:
    """A stored weight as [hidden, inputs], a bias as [hidden, 1]; the same turn leads back to the stored layout."""
    if tensor.ndim == 1:
        return tensor[:, None]
    return tensor if projection.layout == "out_in" else tensor.T


def _asked(edit: LowRankEdit) -> list[float]:
    """The gains of an edit: the diagonal of `R L` (V^+ D D^-1 V diag(a) = diag(a))."""
    return [round(float(g), 12) for g in torch.diagonal(edit.right @ edit.left)]


def _overwrite(partial: Path, stored: StoredTensor, data: memoryview) -> None:
    if len(data) != stored.end - stored.start or stored.dtype not in DTYPES:
        raise ValueError(f"{stored.name} changed size: {len(data)} bytes for {stored.end - stored.start}")
    with (partial / stored.file).open("r+b") as file:
        file.seek(stored.start)
        file.write(data)
