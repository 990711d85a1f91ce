"""The header of a safetensors file, checked as a stranger's: nothing in it is believed, and memory stays that of the header.

Layout (little-endian): 8 bytes length, that many bytes of JSON {name: {dtype, shape, data_offsets}}, the tensors' bytes. The bytes
are packed: every one belongs to one tensor. Source: the format's README, and `SafeTensors::deserialize` of the library.
"""

import json
import struct
from dataclasses import dataclass
from math import prod
from os.path import isfile
from pathlib import Path
from typing import Any

from burnish.errors import ModelError

LONGEST = 100_000_000  # bytes of a header, the library's own limit
MOST_DIMENSIONS = 64  # torch's limit
LFS = b"version "  # how the file begins that stands for another one in a repository
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies: bytes [start, end) of a file."""

    name: str
    file: str
    dtype: str  # safetensors' name
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(folder: Path, file: str) -> list[StoredTensor]:
    """The tensors of a file of a folder, in the order of their bytes. Raises ModelError for a missing or damaged one."""
    path = folder / file
    if not isfile(path):  # which a name that no file can have does not upset
        raise ModelError(f"{path} is missing or no file, and the checkpoint names it. Download the model again.")
    with path.open("rb") as stream:
        size = path.stat().st_size
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if prefix == LFS:
            raise ModelError(f"{path} is a pointer of Git LFS and not the weights. Fetch them with `git lfs pull`.")
        if not 0 < length <= min(LONGEST, size - 8):
            raise ModelError(f"{path} is not a complete safetensors file. Download it again.")
        try:
            header = json.loads(stream.read(length), object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise _damaged(path, "it is no JSON, or names a tensor twice") from error
    if not isinstance(header, dict):
        raise _damaged(path, "it is no table")
    data = 8 + length
    stored = [_tensor(path, file, name, entry, data) for name, entry in header.items() if name != "__metadata__"]
    stored.sort(key=lambda tensor: (tensor.start, tensor.end))
    reached = data
    for tensor in stored:
        if tensor.start != reached:
            raise _damaged(path, f"{tensor.name[:80]!r} lies at {tensor.start} and the one before it ends at {reached}")
        reached = tensor.end
    if reached > size:
        raise ModelError(
            f"{path} ends early: it is cut short, and its header names tensors behind its end. Download it again."
        )
    if reached < size:
        raise _damaged(path, f"{size - reached} bytes belong to no tensor")
    return stored


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is there twice")
    return table


def _tensor(path: Path, file: str, name: str, entry: Any, data: int) -> StoredTensor:
    if not isinstance(entry, dict) or not _is_text(name):
        raise _damaged(path, f"{name[:80]!r} is no name, or is described by no table")
    dtype, shape, offsets = entry.get("dtype"), _numbers(entry.get("shape")), _numbers(entry.get("data_offsets"))
    if not isinstance(dtype, str) or not _is_text(dtype) or shape is None or len(shape) > MOST_DIMENSIONS:
        raise _damaged(path, f"{name[:80]!r} has type {str(dtype)[:20]!r} and shape {str(entry.get('shape'))[:80]!r}")
    if offsets is None or len(offsets) != 2:
        raise _damaged(path, f"{name[:80]!r} lies at {str(entry.get('data_offsets'))[:80]!r}")
    start, end = offsets
    if end < start or (dtype in BITS and 8 * (end - start) != prod(shape) * BITS[dtype]):
        raise _damaged(path, f"{name[:80]!r} of type {dtype} and shape {str(shape)[:80]} takes {end - start} bytes")
    return StoredTensor(name, file, dtype, shape, data + start, data + end)


def _numbers(value: Any) -> tuple[int, ...] | None:
    """A list of whole numbers from 0, which JSON's truths and fractions are not."""
    good = isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)
    return tuple(value) if good else None


def _is_text(name: str) -> bool:
    """JSON can hold half a character."""
    try:
        return len(name.encode("utf-8")) >= len(name)
    except UnicodeEncodeError:
        return False


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} has a damaged header: {why}. Download it again.")
