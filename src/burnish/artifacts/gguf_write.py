"""Writes small GGUF files: key-values and float32 tensors that are all in memory (adapters)."""

import struct
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

from gguf import GGMLQuantizationType
from torch import Tensor

from burnish.artifacts.gguf_file import DEFAULT_ALIGNMENT, STRING, padded

UINT32, FLOAT32 = 4, 6
Value = str | int | float


def packed_key(name: str, value: Value) -> bytes:
    """One key-value: a string, an unsigned whole number of 32 bits or a float of 32 bits."""
    head = _text(name)
    if isinstance(value, str):
        return head + struct.pack("<I", STRING) + _text(value)
    return head + (struct.pack("<II", UINT32, value) if isinstance(value, int) else struct.pack("<If", FLOAT32, value))


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def write_tensors(path: Path, keys: Mapping[str, Value], tensors: Mapping[str, Tensor]) -> None:
    """Writes version 3. tensors: of any shape, stored as float32."""
    with path.open("wb") as file:
        file.write(_header(keys, {name: tuple(tensor.shape) for name, tensor in tensors.items()}))
        for tensor in tensors.values():
            data = tensor.float().contiguous().numpy().tobytes()
            file.write(data + bytes(padded(len(data), DEFAULT_ALIGNMENT) - len(data)))


def tensors_size(keys: Mapping[str, Value], shapes: Mapping[str, Sequence[int]]) -> int:
    """The bytes that `write_tensors` writes."""
    return len(_header(keys, shapes)) + sum(padded(4 * prod(shape), DEFAULT_ALIGNMENT) for shape in shapes.values())


def _header(keys: Mapping[str, Value], shapes: Mapping[str, Sequence[int]]) -> bytes:
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(shapes), len(keys))]
    parts += [packed_key(name, value) for name, value in keys.items()]
    offset = 0
    for name, shape in shapes.items():
        sizes = tuple(reversed(shape))
        parts.append(_text(name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes))
        parts.append(struct.pack("<IQ", int(GGMLQuantizationType.F32), offset))
        offset += padded(4 * prod(shape), DEFAULT_ALIGNMENT)
    header = b"".join(parts)
    return header + bytes(padded(len(header), DEFAULT_ALIGNMENT) - len(header))
