"""Which tensors and files of two checkpoints differ, and how much: read block by block, so that memory stays small at any size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path

import torch

from burnish.anatomy import Projection
from burnish.artifacts.checkpoint import DTYPES, Checkpoint, read_bytes
from burnish.artifacts.copying import model_files
from burnish.artifacts.files import MARK
from burnish.artifacts.weight_files import INDEX, is_other_form
from burnish.errors import VerificationError
from burnish.steps import Progress

BLOCK = 4 << 20  # bytes held at a time; a multiple of every element's size
OWN_FILES = ("README.md", MARK)  # what an enhanced copy says of itself
OWN_FOLDER = "burnish/"


@dataclass(frozen=True)
class ChangedTensor:
    """A tensor that differs."""

    name: str
    relative_size: float | None  # |x' - x| / |x|; infinite where x is zero; None for other than finite floating point
    share: float  # of its elements (of its bytes where not floating point) that differ


@dataclass(frozen=True)
class ChangedFile:
    """A file other than weights that differs."""

    name: str
    before: int | None  # bytes; None where the base has no such file
    after: int | None  # None where it is missing


def check_same_tensors(base: Checkpoint, other: Checkpoint) -> None:
    """Raises VerificationError unless both hold tensors of the same names, shapes and types."""
    shapes = [{n: (t.shape, t.dtype) for n, t in c.tensors.items()} for c in (base, other)]
    if shapes[0] != shapes[1]:
        different = sorted(n for n in {*shapes[0], *shapes[1]} if shapes[0].get(n) != shapes[1].get(n))
        raise VerificationError(
            f"The two checkpoints do not hold the same tensors: {len(different)} differ in name, shape or type, for example "
            f"'{different[0]}'. Pass the model that was enhanced and its enhanced copy."
        )


def owners(checkpoint: Checkpoint, projections: Sequence[Projection]) -> dict[str, Projection]:
    """The projection that each weight or bias belongs to, by the tensor's name. Raises QuantisedModelError, ModelError."""
    return {name: projection for projection in projections for name in checkpoint.names_of(projection)}


def differing(base: Checkpoint, other: Checkpoint, progress: Progress | None = None) -> list[str]:
    """The tensors whose bytes differ, sorted; compared by name, however they are spread over files."""
    names = []
    for index, name in enumerate(base.tensors):
        if progress is not None:
            progress("comparing", index + 1, len(base.tensors))
        if any(old != new for old, new in zip(_bytes(base, name), _bytes(other, name), strict=True)):
            names.append(name)
    return names


def measure(base: Checkpoint, other: Checkpoint, name: str) -> ChangedTensor:
    """How much a tensor changed."""
    dtype = DTYPES.get(base.tensors[name].dtype)
    different, elements, change, size = 0, 0, 0.0, 0.0
    for blocks in zip(_bytes(base, name), _bytes(other, name), strict=True):
        old, new = (torch.frombuffer(block, dtype=dtype or torch.uint8) for block in blocks)
        different += int((old != new).sum())
        elements += old.numel()
        if dtype is not None:
            change += float((new.double() - old.double()).square().sum())
            size += float(old.double().square().sum())
    relative_size = (change / size) ** 0.5 if size else inf
    known = dtype is not None and isfinite(change + size)
    return ChangedTensor(name, relative_size if known else None, different / elements)


def changed_files(base: Checkpoint, other: Checkpoint) -> tuple[ChangedFile, ...]:
    """Files other than weights that differ, are missing or are new in `other`; what Burnish adds to a copy, and other forms of the
    weights that a copy does without, are left out."""
    # How the tensors are spread over files is no difference.
    weights = {*base.files, *other.files, INDEX}
    names = {
        path.relative_to(checkpoint.folder).as_posix()
        for checkpoint in (base, other)
        for path in model_files(checkpoint.folder)
    }
    files = []
    for name in sorted(names - weights - {*OWN_FILES}):
        if name.startswith(OWN_FOLDER):
            continue
        paths = base.folder / name, other.folder / name
        sizes = [path.stat().st_size if path.is_file() else None for path in paths]
        if sizes[1] is None and is_other_form(name, base.files):
            continue  # a copy does without
        if sizes[0] is None or sizes[0] != sizes[1] or not _same_file(*paths, sizes[0]):
            files.append(ChangedFile(name, *sizes))
    return tuple(files)


def _same_file(one: Path, two: Path, size: int) -> bool:
    return all(a == b for a, b in zip(_blocks(one, 0, size), _blocks(two, 0, size), strict=True))


def _bytes(checkpoint: Checkpoint, name: str) -> Iterator[bytearray]:
    stored = checkpoint.tensors[name]
    return _blocks(checkpoint.folder / stored.file, stored.start, stored.end)


def _blocks(path: Path, start: int, end: int) -> Iterator[bytearray]:
    """The bytes [start, end) of a file. Raises ModelError for a file that is cut short."""
    with path.open("rb") as file:
        file.seek(start)
        while start < end:
            block = read_bytes(file, min(BLOCK, end - start))
            start += len(block)
            yield block
