"""Reads safetensors checkpoints: single files or shards, header by header, tensor by tensor."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from burnish.anatomy import LinearMap, Projection
from burnish.artifacts.files import read_table
from burnish.artifacts.safetensors_header import StoredTensor, read_header
from burnish.artifacts.weight_files import weight_files
from burnish.errors import ModelError, QuantisedModelError

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
INTEGERS = {"I64": torch.int64, "I32": torch.int32, "BOOL": torch.bool}  # buffers that are stored with the weights
SAMPLE = 64  # bytes read at the start, middle and end of a tensor for the fingerprint


def read_bytes(file: BinaryIO, size: int) -> bytearray:
    """The next `size` bytes of a weight file. Raises ModelError where it ends before."""
    buffer = bytearray(size)
    if file.readinto(buffer) != size:  # type: ignore[attr-defined]
        raise ModelError(
            f"{file.name} ends early: it is cut short, and its header names tensors behind its end. Download it again."
        )
    return buffer


@dataclass(frozen=True)
class Checkpoint:
    """A model folder's weights, read lazily.

    module_names: asked when a module's tensor is not stored under the module's own name; gives, for architectures whose
    tensors are renamed on loading, the stored name of each tensor by its name in the loaded model.
    """

    folder: Path
    module_names: Callable[[], Mapping[str, str]] = field(default=dict, compare=False)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The weight files that the library loads. Raises ModelError as `weight_files`."""
        return weight_files(self.folder)

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """Every tensor by name, sorted."""
        tensors: dict[str, StoredTensor] = {}
        for file in self.files:
            for stored in read_header(self.folder, file):
                if stored.name in tensors:
                    raise ModelError(
                        f"{stored.name[:80]!r} lies in two files of {self.folder}: {tensors[stored.name].file} and {file}. Remove the one "
                        "that does not belong to the model."
                    )
                tensors[stored.name] = stored
        return dict(sorted(tensors.items()))

    def read(self, name: str) -> Tensor:
        """One tensor, in its own dtype. Takes no more memory than the tensor: the file is not mapped.

        Raises ModelError for a file that is cut short, QuantisedModelError for a type that is not read.
        """
        stored = self.tensors[name]
        dtype = (DTYPES | INTEGERS).get(stored.dtype)
        if dtype is None:
            raise QuantisedModelError(
                f"'{name[:80]}' is stored as {stored.dtype[:20]}, which is not read. Pass the original (unquantised) weights."
            )
        with (self.folder / stored.file).open("rb") as file:
            file.seek(stored.start)
            values = read_bytes(file, stored.end - stored.start)
        if not values:  # nothing to make a tensor from
            return torch.empty(stored.shape, dtype=dtype)
        return torch.frombuffer(values, dtype=dtype).view(stored.shape)

    def read_rows(self, name: str, rows: Sequence[int]) -> Tensor:
        """Some rows of a floating point matrix, [rows, columns]; nothing else is read. Raises ModelError as `read`."""
        stored = self.tensors[name]
        size = (stored.end - stored.start) // stored.shape[0]
        values = bytearray()
        with (self.folder / stored.file).open("rb") as file:
            for row in rows:
                file.seek(stored.start + row * size)
                values += read_bytes(file, size)
        return torch.frombuffer(values, dtype=DTYPES[stored.dtype]).view(len(rows), *stored.shape[1:])

    def names_of(self, projection: Projection | LinearMap) -> list[str]:
        """The tensors of a projection: its weight and, where it has one, its bias. Raises as `match`."""
        shape = (projection.outputs, projection.inputs)
        names = [self.match(projection.path, "weight", shape if projection.layout == "out_in" else shape[::-1])]
        return [*names, self.match(projection.path, "bias", shape[:1])] if projection.bias else names

    def match(self, path: str, suffix: str, shape: tuple[int, ...]) -> str:
        """The name under which module `path` stores `suffix` ("weight", "bias").

        Its own name, or the one it is renamed from on loading, or (wrappers store a module under another prefix) the longest
        common ending; the shape must agree. Raises QuantisedModelError or ModelError.
        """
        wanted = f"{path}.{suffix}"
        names = [wanted] if wanted in self.tensors else []
        if not names:
            renamed = self.module_names().get(wanted)
            names = [renamed] if renamed is not None else self._endings(wanted)
        fitting = [n for n in names if self.tensors[n].shape == shape]
        if len(fitting) == 1 and self.tensors[fitting[0]].dtype in DTYPES:
            return fitting[0]
        if len(names) == 1:
            stored = self.tensors[names[0]]
            packed = f"{stored.dtype} {list(stored.shape)}, not as floating point {list(shape)}"
        else:
            packed = ", ".join(self.beside(path))
        if packed:
            raise QuantisedModelError(
                f"'{names[0] if len(names) == 1 else path}' is stored as {packed}: these weights are quantised or packed and cannot be "
                "edited in place. Write --form adapter instead, or pass the original (unquantised) weights."
            )
        raise ModelError(
            f"The checkpoint has no tensor for '{wanted}' of shape {list(shape)}. The folder's config and weights do not belong together."
        )

    def beside(self, path: str) -> list[str]:
        """What module `path` stores beside its weight and bias (scales, zeros, packed numbers), by suffix.

        Where nothing is stored under its own path: under a path that is the same from the layer's number on, as wrappers have other prefixes.
        """
        parts = path.split(".")
        layer = max((i for i, part in enumerate(parts) if part.isdigit()), default=0)
        ending = ".".join(parts[layer:]) + "."
        suffixes = [n.removeprefix(f"{path}.") for n in self.tensors if n.startswith(f"{path}.")]
        suffixes = suffixes or [n.rpartition(f".{ending}")[2] for n in self.tensors if f".{ending}" in n]
        return sorted({*suffixes} - {"weight", "bias"})

    @cached_property
    def quantisation(self) -> dict[str, Any]:
        """What the folder's config says of quantised weights, {} where nothing."""
        config = self.folder / "config.json"
        settings = read_table(config) if config.exists() else {}
        return settings.get("quantization_config") or {}

    def _endings(self, wanted: str) -> list[str]:
        """The tensors that share the longest ending with `wanted`, down to the layer's number."""
        parts = wanted.split(".")
        last = max((i for i, part in enumerate(parts) if part.isdigit()), default=len(parts) - 1)
        for start in range(1, last + 1):
            ending = ".".join(parts[start:])
            names = [n for n in self.tensors if n == ending or n.endswith("." + ending)]
            if names:
                return names
        return []

    @property
    def bytes(self) -> int:
        return sum((self.folder / file).stat().st_size for file in self.files)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names, types and shapes of all tensors and samples of their bytes: cheap at any size."""
        digest, tensors = hashlib.sha256(), self.tensors  # checked before any file is opened
        handles = {file: (self.folder / file).open("rb") for file in self.files}
        try:
            for name, stored in tensors.items():
                digest.update(f"{name}|{stored.dtype}|{stored.shape}".encode())
                size = stored.end - stored.start
                for offset in (0, size // 2, max(0, size - SAMPLE)):
                    handles[stored.file].seek(stored.start + offset)
                    digest.update(handles[stored.file].read(min(SAMPLE, size - offset)))
        finally:
            for handle in handles.values():
                handle.close()
        return digest.hexdigest()
