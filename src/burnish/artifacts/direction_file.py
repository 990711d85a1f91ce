"""The file of a direction or an enhancement: tensors, and a header that says where they come from."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from burnish import __version__
from burnish.anatomy import Anatomy
from burnish.artifacts.files import written
from burnish.errors import InputError
from burnish.options import Scope, Site

LAYER_CONVENTION = "layer l is the output of decoder block l, counted from 0 (hidden_states[l + 1])"
FORMAT = 1
HEADER = "burnish"  # metadata key


@dataclass(frozen=True)
class Provenance:
    """What a direction was made from."""

    model: str  # as the user named it
    fingerprint: str  # of the weights
    architecture: str
    layers: int
    hidden_size: int
    enhance: str  # name of the prompt set
    normal: str
    enhance_hash: str
    normal_hash: str
    enhance_prompts: int
    normal_prompts: int
    position: str
    template: bool  # rendered through the model's chat template
    seed: int
    protected: bool
    # Kind and hash of what the model read when it taught this direction; empty for a contrast of prompts.
    teacher: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    layer_convention: str = LAYER_CONVENTION


@dataclass(frozen=True)
class LayerReport:
    """Held-out quality of the direction at each layer (lists of one number per layer)."""

    auroc: list[float]
    d_prime: list[float]
    null_auroc: list[float]
    split_half_cosine: list[float]  # empty for a learnt direction: it has no halves
    cosine_with_chosen: list[float]
    largest_share: list[float]
    held_out: int


def stored_bytes(layers: int, hidden: int, rank: int = 1) -> int:
    """About the size of a direction's or an enhancement's file, before there is one: its numbers and what it was made from."""
    return rank * (4 * layers * (hidden + 1) + 1500 + 250 * layers)


def kind_of(path: Path) -> str:
    """'direction' or 'enhancement'. Raises InputError for any other file."""
    with open_tensors(path) as file:
        return _checked(file.metadata() or {}, str(path)).kind


@dataclass(frozen=True)
class StoredDirection:
    """One direction as a file's header describes it: all but its vectors."""

    layer: int
    scope: Scope
    site: Site
    provenance: Provenance
    report: LayerReport
    anatomy: Anatomy


Kind = Literal["direction", "enhancement"]  # as a file's header names it
Content = tuple[dict[str, Tensor], Sequence[StoredDirection]]  # of a file: tensors by name, and the directions


@dataclass(frozen=True)
class _Header:
    kind: Kind
    directions: list[StoredDirection]
    recipe: str | None = None


@contextmanager
def open_tensors(path: Path, what: str = "a direction or enhancement") -> Iterator[Any]:
    """A safetensors file. What goes wrong with it is an InputError that names `what` it should be."""
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as {what}: {error}. Check the path.") from error


@cache
def _adapter() -> TypeAdapter[_Header]:
    return TypeAdapter(_Header)


def _checked(metadata: dict[str, str], where: str) -> _Header:
    if HEADER not in metadata:
        raise InputError(
            f"{where} was not written by Burnish. Pass a file made by `burnish find` or `burnish enhance`."
        )
    try:
        header = json.loads(metadata[HEADER])
        if header["format"] != FORMAT:
            raise InputError(
                f"{where} has format {str(header['format'])[:20]}, and this version reads {FORMAT}. Make it again with this version."
            )
        return _adapter().validate_python(header)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise unusable(where, error) from error


def unusable(where: Path | str, why: object) -> InputError:
    return InputError(f"{where} is damaged: {' '.join(str(why).split())[:300]}. Make it again.")


def recipe_of(path: Path) -> str | None:
    """The recipe that a file carries, if any. Raises InputError for a file that is not ours."""
    with open_tensors(path) as file:
        return _checked(file.metadata() or {}, str(path)).recipe


def matrix_of(tensors: dict[str, Tensor], name: str, dimensions: int, where: str) -> Tensor:
    matrix = tensors.get(name)
    if (
        matrix is None
        or matrix.dtype != torch.float32
        or matrix.ndim != dimensions
        or not bool(matrix.isfinite().all())
    ):
        raise unusable(where, f"it has no {name} of finite float32 numbers in {dimensions} dimensions")
    return matrix


class Storable(ABC):
    """What has a file of its own."""

    _kind: ClassVar[Kind]

    @abstractmethod
    def _content(self) -> Content:
        """What the file holds."""

    @classmethod
    @abstractmethod
    def _of(cls, tensors: dict[str, Tensor], directions: Sequence[StoredDirection], where: str) -> Self:
        """The same again, checked. where: the file, for messages."""

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Reads a file that `save` wrote.

        Args:
            path: the file.

        Returns:
            What it holds.

        Raises:
            InputError: the file holds something else.
        """
        with open_tensors(Path(path)) as file:
            header = _checked(file.metadata() or {}, str(path))
            if header.kind != cls._kind:
                raise InputError(f"{path} holds a {header.kind}, and a {cls._kind} is needed here.")
            names = {"vectors", "gains"} & set(file.keys())
            return cls._of({name: file.get_tensor(name) for name in names}, header.directions, str(path))

    def as_bytes(self, recipe: str | None = None) -> bytes:
        """Gives what `save` writes.

        Args:
            recipe: the command that makes it again.

        Returns:
            The file's bytes.
        """
        tensors, directions = self._content()
        header = _adapter().dump_python(_Header(self._kind, list(directions), recipe))
        header |= {"format": FORMAT, "version": __version__}
        if recipe is None:
            del header["recipe"]
        plain = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
        # One key only: several would be stored in an order that differs from run to run.
        return save(plain, metadata={HEADER: json.dumps(header, ensure_ascii=False, sort_keys=True)})

    def save(self, path: Path | str, *, overwrite: bool = False, recipe: str | None = None) -> Path:
        """Writes one safetensors file.

        Args:
            path: the file.
            overwrite: replace a file that is there.
            recipe: the command that makes it again.

        Returns:
            The path.

        Raises:
            OutputExistsError: there is a file, and `overwrite` is off.
            DiskFullError: the disk is full.
        """
        with written(Path(path), overwrite=overwrite) as partial:
            # Not by the library's `save_file`, whose errors do not say that a disk is full.
            partial.write_bytes(self.as_bytes(recipe))
        return Path(path)
