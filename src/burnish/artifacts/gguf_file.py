"""Reads GGUF files: the header in one bounded pass, then tensor by tensor, never more than one tensor in memory.

Layout (all little-endian): "GGUF", version, tensor count, key-value count; the key-values; for each tensor its name, shape,
type and offset; padding to `general.alignment`; the tensors' data, packed in the order of their entries. Lengths and counts
are checked against the file's size before anything is reserved for them, so that a hostile header costs no memory.
Source: ggml/docs/gguf.md and ggml/src/gguf.cpp of llama.cpp, whose own limits are kept here.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from gguf import GGMLQuantizationType, quants
from gguf.constants import GGML_QUANT_SIZES
from torch import Tensor

from burnish.artifacts.checkpoint import read_bytes
from burnish.errors import ModelError, QuantisedModelError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # by value type
STRING, ARRAY = 8, 9
EXACT = {  # types that torch has too
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}
DEFAULT_ALIGNMENT = 32
LONGEST_NAME = 63  # bytes of a tensor's name (GGML_MAX_NAME)
LONGEST_KEY = 65_535
LONGEST_VALUE = 1 << 20  # longer strings are skipped, not kept
MOST_KEYS, MOST_TENSORS, MOST_ITEMS = 1 << 16, 1 << 18, 1 << 24
MOST_DIMENSIONS = 4
MOST_ELEMENTS = 2**63 - 1


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: what it is, where its bytes [start, end) lie, and where its entry says so."""

    name: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]  # rows first, as torch counts; the file counts the other way round
    start: int
    end: int
    entry: int  # position of its type (4 bytes) and offset (8 bytes) in the header


@dataclass(frozen=True)
class GgufFile:
    """The header of a GGUF file."""

    path: Path
    metadata: dict[str, Any]  # scalars and strings; arrays are None
    tensors: dict[str, GgufTensor]  # in the order of the file
    keys_end: int  # where the key-values end and the tensors' entries begin
    entries_end: int
    alignment: int
    size: int = field(compare=False)

    @property
    def architecture(self) -> str:
        """`general.architecture`, "" where it is missing."""
        value = self.metadata.get("general.architecture")
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
        """The whole number under `ARCHITECTURE.key`, None where there is none (some architectures have one a layer)."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) else None

    def read(self, name: str) -> Tensor:
        """One tensor, dequantised: float16 and bfloat16 in their own type, everything else float32.

        Raises QuantisedModelError for a type that the `gguf` package cannot dequantise, ModelError for a file cut short.
        """
        tensor = self.tensors[name]
        with self.path.open("rb") as file:
            file.seek(tensor.start)
            data = np.frombuffer(read_bytes(file, tensor.end - tensor.start), dtype=np.uint8)
        return dequantised(data, tensor)


def dequantised(data: "np.ndarray[Any, np.dtype[np.uint8]]", tensor: GgufTensor) -> Tensor:
    """The values of a tensor's bytes, in its shape."""
    if tensor.kind in EXACT:
        return torch.from_numpy(data).view(EXACT[tensor.kind]).view(tensor.shape)
    rows = data.reshape(*tensor.shape[:-1], -1)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return torch.from_numpy(quants.dequantize(rows, tensor.kind)).view(tensor.shape)
    except NotImplementedError as error:
        raise QuantisedModelError(
            f"'{tensor.name}' is stored as {tensor.kind.name}, which the installed gguf package cannot turn into numbers. "
            "Update the package (pip install -U gguf) or pass a file of another type."
        ) from error


def padded(position: int, alignment: int) -> int:
    """The next multiple of `alignment`."""
    return -(-position // alignment) * alignment


def read_gguf(path: Path) -> GgufFile:
    """Reads and checks the header. Raises ModelError for anything that is not a whole little-endian GGUF file, version 2 or 3."""
    size = path.stat().st_size
    with path.open("rb", buffering=1 << 20) as file:
        header = _Header(file, path, size)
        count, keys = header.start()
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = header.name(LONGEST_KEY, "key")
            if not key or key in metadata:
                raise header.damaged(f"the key '{key[:80]}' is empty or there twice")
            metadata[key] = header.value()
        keys_end = file.tell()
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1) or alignment > 1 << 20:
            raise header.damaged(f"general.alignment is {str(alignment)[:20]}, which is no power of two")
        entries = [header.tensor() for _ in range(count)]
        entries_end = file.tell()
        tensors = dict(_placed(header, entries, padded(entries_end, alignment), alignment))
    return GgufFile(path, metadata, tensors, keys_end, entries_end, alignment, size)


Entry = tuple[str, GGMLQuantizationType, tuple[int, ...], int, int]  # name, type, shape, offset, position of the type


def _placed(header: "_Header", entries: list[Entry], start: int, alignment: int) -> Iterator[tuple[str, GgufTensor]]:
    """The tensors with their places; each must begin where the one before it ends, as llama.cpp demands."""
    names: set[str] = set()
    expected = 0
    for name, kind, shape, offset, position in entries:
        block, block_bytes = GGML_QUANT_SIZES[kind]
        length = prod(shape) // block * block_bytes
        if name in names:
            raise header.damaged(f"the tensor '{name}' is there twice")
        if offset != expected:
            raise header.damaged(f"the tensor '{name}' lies at {offset} and the one before it ends at {expected}")
        if start + offset + length > header.size:
            raise header.damaged(f"it ends before the tensor '{name}' does")
        names.add(name)
        expected = padded(offset + length, alignment)
        yield name, GgufTensor(name, kind, shape, start + offset, start + offset + length, position)


class _Header:
    """Reads the header's fields one after the other, each checked against what is left of the file."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self.file, self.path, self.size = file, path, size

    def damaged(self, what: str) -> ModelError:
        return ModelError(f"{self.path} is not a whole GGUF file: {what}. Download or convert it again.")

    def start(self) -> tuple[int, int]:
        """(tensors, keys): how many there are of each."""
        if self.file.read(4) != b"GGUF":
            raise self.damaged("it does not begin with 'GGUF'")
        (version,) = self.numbers("I")
        if version & 0xFFFF == 0:
            raise ModelError(
                f"{self.path} is a big-endian GGUF file, and only little-endian ones are read. Convert it on the machine it is for."
            )
        if version not in (2, 3):
            raise ModelError(f"{self.path} is GGUF version {version}; versions 2 and 3 are read. Convert it again.")
        tensors, keys = self.numbers("QQ")
        if tensors > MOST_TENSORS or keys > MOST_KEYS:
            raise self.damaged(f"it claims {tensors} tensors and {keys} keys")
        return tensors, keys

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        if len(data) != size:
            raise self.damaged("it ends inside its header")
        return data

    def numbers(self, form: str) -> tuple[Any, ...]:
        packed = struct.Struct("<" + form)
        return packed.unpack(self.read(packed.size))

    def skip(self, count: int) -> None:
        if count > self.size - self.file.tell():
            raise self.damaged(f"a field of {count} bytes is longer than the file")
        self.file.seek(count, 1)

    def name(self, longest: int, what: str) -> str:
        (length,) = self.numbers("Q")
        if length > longest:
            raise self.damaged(f"a {what} is {length} bytes long, and {longest} is the most")
        try:
            return self.read(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.damaged(f"a {what} is not text") from error

    def value(self) -> Any:
        (kind,) = self.numbers("I")
        if kind in SCALARS:
            return self.numbers(SCALARS[kind])[0]
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            raise self.damaged(f"there is no value type {kind}")
        item, count = self.numbers("IQ")
        if item in SCALARS:
            self.skip(count * struct.calcsize("<" + SCALARS[item]))
        elif item == STRING:
            # Every string has a length of 8 bytes: more of them than that cannot be in the file.
            if count > min(MOST_ITEMS, (self.size - self.file.tell()) // 8):
                raise self.damaged(f"it claims a list of {count} strings")
            for _ in range(count):
                self.skip(self.numbers("Q")[0])
        else:
            raise self.damaged(f"there are no lists of value type {item}")
        return None

    def _string(self) -> str | None:
        (length,) = self.numbers("Q")
        if length > LONGEST_VALUE:
            self.skip(length)
            return None
        return self.read(length).decode("utf-8", "replace")

    def tensor(self) -> Entry:
        """(name, type, shape, offset, position of the type)."""
        name = self.name(LONGEST_NAME, "tensor's name")
        (dimensions,) = self.numbers("I")
        if dimensions > MOST_DIMENSIONS:
            raise self.damaged(f"the tensor '{name}' has {dimensions} dimensions")
        sizes = self.numbers("Q" * dimensions)
        position = self.file.tell()
        number, offset = self.numbers("IQ")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError as error:
            raise ModelError(
                f"'{name}' in {self.path} has type {number}, which the installed gguf package does not know. Update the package "
                "(pip install -U gguf), or download the file again if it may be damaged."
            ) from error
        if prod(sizes) > MOST_ELEMENTS or (sizes and sizes[0] % GGML_QUANT_SIZES[kind][0]):
            raise self.damaged(f"the tensor '{name}' of type {kind.name} cannot have the shape {list(sizes)}")
        return name, kind, tuple(reversed(sizes)), offset, position
