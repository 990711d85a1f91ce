"""The baked form of a GGUF file: a copy in which only the attention output projections differ.

Streams from file to file; memory is that of one projection. The key-values are copied byte for byte, one more is appended
that says what was done. A projection keeps its number type where that holds the edit; otherwise it is written as float16,
for which every program that reads GGUF has kernels.
"""

import json
import os
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import torch
from gguf import GGMLQuantizationType, quants
from torch import Tensor

from burnish.anatomy import Projection
from burnish.artifacts.bake import LayerGain, asked_gains
from burnish.artifacts.copying import BLOCK, copy_file
from burnish.artifacts.files import written
from burnish.artifacts.gguf_file import EXACT, GgufFile, GgufTensor, dequantised, padded
from burnish.artifacts.gguf_names import stored_names
from burnish.artifacts.gguf_write import packed_key
from burnish.errors import ModelError
from burnish.maths.gain import LowRankEdit, edit_weight
from burnish.maths.rounding import realised_gain, round_along
from burnish.options import OutputOptions
from burnish.steps import Progress

MARK = "burnish.enhancement"  # key: what was done, as JSON
GAIN_TOLERANCE = 0.01  # of each gain asked
SAMPLED_ROWS, FAR = 64, 2.0  # requantising is slow: a sample decides where the answer is clear
STRAY_TOLERANCE = 0.1  # size of what else moves, as a share of the size of the change


@dataclass(frozen=True)
class GgufEdit:
    """One tensor of the file and its edit."""

    tensor: GgufTensor
    projection: Projection
    edit: LowRankEdit

    @property
    def is_bias(self) -> bool:
        return len(self.tensor.shape) == 1


@dataclass(frozen=True)
class GgufGain(LayerGain):
    """What was asked of one projection, what its stored weights realise, and the number type they are stored in."""

    stored: str
    before: str
    stray: float  # size of the rounding's other changes, as a share of the size of the change


@dataclass(frozen=True)
class Chosen:
    """An edited tensor in the number type that it will have."""

    kind: GGMLQuantizationType
    data: bytes
    realised: list[float]
    stray: float


def gguf_edits(source: GgufFile, edits: Iterable[tuple[Projection, LowRankEdit]]) -> list[GgufEdit]:
    """Finds the tensors (weights and biases) of each projection. Raises ModelError."""
    return [
        GgufEdit(source.tensors[name], projection, edit)
        for projection, edit in edits
        for name in stored_names(source, projection)
    ]


def choose(source: GgufFile, item: GgufEdit) -> Chosen:
    """Edits one tensor and decides in which type it is written.

    Floating point types stay, rounded along the direction. A block-quantised type stays where the package can quantise to it,
    every gain is realised within 1 % and everything else that requantising moves is small against the change. Otherwise
    float16; float32 where that would overflow. Raises ModelError for weights that are not finite.
    """
    before = source.read(item.tensor.name)
    old = before[:, None] if item.is_bias else before
    exact = edit_weight(old, item.edit)
    if not bool(exact.isfinite().all()):
        raise ModelError(
            f"'{item.tensor.name}' in {source.path} holds values that are not finite: the file is damaged. Download it again."
        )
    change = max(float((exact - old).norm()), torch.finfo(torch.float32).tiny)
    kind = item.tensor.kind
    if kind not in EXACT:
        again = _requantised(exact, item.tensor, STRAY_TOLERANCE * change)
        if again is not None:
            chosen = _measured(kind, *again, old, exact, change, item)
            if chosen.stray <= STRAY_TOLERANCE and _within(chosen.realised, asked_gains(item.edit)):
                return chosen
        fits = bool(exact.abs().max() <= torch.finfo(torch.float16).max)
        kind = GGMLQuantizationType.F16 if fits else GGMLQuantizationType.F32
    rounded = round_along(exact, item.edit.right, EXACT[kind])
    data = rounded.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return _measured(kind, data, rounded, old, exact, change, item)


def _requantised(exact: Tensor, tensor: GgufTensor, allowed: float) -> tuple[bytes, Tensor] | None:
    """The bytes in the tensor's own type and what they stand for; None for a type that the package only reads, and where a sample
    of the rows says that the error will be far above the size `allowed`."""
    values = exact.view(tensor.shape)
    sample = values[:: max(1, len(values) // SAMPLED_ROWS)]
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            error = float((_through(sample, tensor)[1] - sample).norm()) * (values.numel() / sample.numel()) ** 0.5
            if not error <= FAR * allowed:  # also where it is no number
                return None
            data, new = _through(values, tensor)
    except NotImplementedError:
        return None
    return data, new.view(exact.shape)


def _through(values: Tensor, tensor: GgufTensor) -> tuple[bytes, Tensor]:
    """Rows of the tensor in its type, and read back."""
    quantised = quants.quantize(values.contiguous().numpy(), tensor.kind)
    return quantised.tobytes(), dequantised(
        quantised.view(np.uint8).reshape(-1), replace(tensor, shape=tuple(values.shape))
    )


def _measured(
    kind: GGMLQuantizationType, data: bytes, new: Tensor, old: Tensor, exact: Tensor, change: float, item: GgufEdit
) -> Chosen:
    stray = float((new - exact).norm()) / change
    return Chosen(kind, data, realised_gain(old, new, item.edit).tolist(), stray)


def _within(realised: Sequence[float], asked: Sequence[float]) -> bool:
    return all(abs(r - a) <= GAIN_TOLERANCE * abs(a) + 1e-6 for r, a in zip(realised, asked, strict=True))


def edited_size(source: GgufFile, edits: Sequence[GgufEdit], *, mark: dict[str, Any], measured: bool) -> int:
    """The bytes of the edited file: exact when `measured` (every edit is computed), else the most that is likely (float16)."""
    if not edits:
        return source.size
    sizes = {item.tensor.name: _size(source, item, measured=measured) for item in edits}
    position = padded(source.entries_end + len(_key(mark)), source.alignment)
    for tensor in source.tensors.values():
        position = padded(position + sizes.get(tensor.name, tensor.end - tensor.start), source.alignment)
    return position


def _size(source: GgufFile, item: GgufEdit, *, measured: bool) -> int:
    if measured:
        return len(choose(source, item).data)
    size = item.tensor.end - item.tensor.start
    return size if item.tensor.kind in EXACT else max(size, 2 * int(np.prod(item.tensor.shape)))


def write_gguf(
    source: GgufFile,
    output: OutputOptions,
    edits: Sequence[GgufEdit],
    mark: dict[str, Any],
    *,
    progress: Progress | None = None,
) -> tuple[GgufGain, ...]:
    """Writes the edited file; without edits, a copy. mark: stored as JSON under `burnish.enhancement`.

    Raises OutputExistsError and DiskFullError; nothing half-written is left, and the source is only read.
    """
    with written(output.out, overwrite=output.overwrite) as partial:
        if not edits:
            copy_file(source.path, partial)
            return ()
        by_name = {item.tensor.name: item for item in edits}
        done: dict[str, Chosen] = {}
        with source.path.open("rb") as reader, partial.open("w+b") as writer:
            shift = _write_header(source, reader, writer, mark)
            start = writer.tell()
            for tensor in source.tensors.values():
                offset = writer.tell() - start
                item = by_name.get(tensor.name)
                if item is None:
                    _copy(reader, writer, tensor.start, tensor.end - tensor.start)
                    kind = tensor.kind
                else:
                    # Only one projection's bytes are held: once written, they are forgotten.
                    chosen = choose(source, item)
                    writer.write(chosen.data)
                    kind = chosen.kind
                    done[tensor.name] = Chosen(kind, b"", chosen.realised, chosen.stray)
                    if progress is not None:
                        progress("writing", len(done), len(edits))
                writer.write(bytes(padded(writer.tell(), source.alignment) - writer.tell()))
                _patch(writer, tensor.entry + shift, struct.pack("<IQ", int(kind), offset))
            writer.flush()
            os.fsync(writer.fileno())
    return tuple(_gain(item, done[item.tensor.name]) for item in edits if not item.is_bias)


def _write_header(source: GgufFile, reader: BinaryIO, writer: BinaryIO, mark: dict[str, Any]) -> int:
    """Everything before the data, with one key more; returns by how much the tensors' entries have moved."""
    key = _key(mark)
    magic, version, tensors, keys = struct.unpack("<4sIQQ", reader.read(24))
    writer.write(struct.pack("<4sIQQ", magic, version, tensors, keys + 1))
    _copy(reader, writer, 24, source.keys_end - 24)
    writer.write(key)
    _copy(reader, writer, source.keys_end, source.entries_end - source.keys_end)
    writer.write(bytes(padded(writer.tell(), source.alignment) - writer.tell()))
    return len(key)


def _key(mark: dict[str, Any]) -> bytes:
    return packed_key(MARK, json.dumps(mark, ensure_ascii=False, sort_keys=True))


def _copy(reader: BinaryIO, writer: BinaryIO, start: int, size: int) -> None:
    reader.seek(start)
    while size:
        block = reader.read(min(size, BLOCK >> 5))
        if not block:
            raise OSError(f"{reader.name} became shorter while it was read")
        writer.write(block)
        size -= len(block)


def _patch(writer: BinaryIO, position: int, data: bytes) -> None:
    writer.seek(position)
    writer.write(data)
    writer.seek(0, os.SEEK_END)


def _gain(item: GgufEdit, chosen: Chosen) -> GgufGain:
    return GgufGain(
        tensor=item.tensor.name,
        layer=item.projection.layer,
        asked=asked_gains(item.edit),
        realised=chosen.realised,
        stored=chosen.kind.name,
        before=item.tensor.kind.name,
        stray=chosen.stray,
    )


def types_note(gains: Sequence[GgufGain]) -> str:
    """In which number types the edited projections are stored, in a line."""
    counts = Counter((gain.before, gain.stored) for gain in gains)
    parts = [
        f"{n} as {stored}" + ("" if before == stored else f" (before: {before})")
        for (before, stored), n in counts.items()
    ]
    return f"projections are stored {', '.join(parts)}."
