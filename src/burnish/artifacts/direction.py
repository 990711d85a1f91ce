"""Directions and enhancements: small safetensors files that say where they come from."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from burnish import __version__
from burnish.anatomy import Anatomy
from burnish.artifacts.files import written
from burnish.errors import InputError, WrongModelError
from burnish.maths.statistics import effective_rank
from burnish.options import DEFAULT_FACTOR, GainOptions, Scope, Site, checked_factor, layer_window

LAYER_CONVENTION = "layer l is the output of decoder block l, counted from 0 (hidden_states[l + 1])"
FORMAT = 1
ORTHOGONAL = 1e-4  # cosine between directions of a layer up to which their edits do not act on each other
HEADER = "burnish"  # metadata key
MOST = (
    1 << 28
)  # numbers of an enhancement's vectors: a file stores one layer where all are the same, and says how many there are


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
    teacher: str = (
        ""  # kind and hash of what the model read when it taught this direction; empty for a contrast of prompts
    )
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


@dataclass(frozen=True)
class Direction:
    """Unit vectors that separate the enhance prompts from the normal ones, with what they were made from.

    Attributes:
        vectors: one unit vector a layer, [layers, hidden].
        layer: the layer whose vector a `single` direction uses, from 0.
        scope: `single` (one vector for every layer) or `per-layer`.
        site: where states were read: the residual stream, or attention's output.
        provenance: what it was made from: model, prompts, options, versions.
        report: held-out quality at each layer.
        anatomy: of the model it was found on.
    """

    vectors: Tensor
    layer: int
    scope: Scope
    site: Site
    provenance: Provenance
    report: LayerReport
    anatomy: Anatomy

    def __str__(self) -> str:
        p, layer = self.provenance, self.layer
        return (
            f"Direction(layer {layer} of {p.layers}, {self.scope}, {self.site}, "
            f"separation {self.report.d_prime[layer]:.1f} sigma, AUROC {self.report.auroc[layer]:.3f} "
            f"(null {self.report.null_auroc[layer]:.3f}), {p.enhance_prompts} + {p.normal_prompts} prompts)"
        )

    @property
    def learned(self) -> bool:
        """Whether it was learnt from a teacher, and not found as a contrast of prompts."""
        return bool(self.provenance.teacher)

    @property
    def found(self) -> bool:
        """Whether the held-out separation is above its shuffled-label null."""
        return self.learned or self.report.auroc[self.layer] > self.report.null_auroc[self.layer]

    def used(self) -> Tensor:
        """The vectors an enhancement uses: the chosen layer's everywhere, or each layer's own.

        Returns:
            [layers, hidden].
        """
        if self.scope == "single":
            return self.vectors[self.layer].expand_as(self.vectors)
        return self.vectors

    def enhancement(self, factor: float | None = None, *, layers: str = GainOptions.layers) -> "Enhancement":
        """A plan with the same factor in a window of layers; nothing is touched.

        Layers without a vector (all zero, as directions of other tools may have them) get no gain.

        Args:
            factor: gain along the vector; 1 doubles what attention writes along it. By default the published factor.
            layers: the window: `all`, `60%..`, `10..20`.

        Returns:
            The enhancement, gains [layers, 1].

        Raises:
            InputError: the factor is no number that can be a gain.
            LayerError: the window has no layer of the model.
        """
        factor = DEFAULT_FACTOR if factor is None else checked_factor(factor)
        gains = torch.zeros(self.provenance.layers, 1)
        gains[list(layer_window(layers, self.provenance.layers))] = factor
        used = self.used()
        gains[~used.any(dim=1)] = 0
        return Enhancement(used[:, None, :].contiguous(), gains, (self,))

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
        return _save(Path(path), "direction", {"vectors": self.vectors}, (self,), overwrite=overwrite, recipe=recipe)

    @staticmethod
    def load(path: Path | str) -> "Direction":
        """Reads a file that `save` wrote.

        Args:
            path: the file.

        Returns:
            The direction.

        Raises:
            InputError: the file is not a direction.
        """
        with _opened(Path(path), "direction") as (tensors, stored):
            return _single(tensors, stored, str(path))

    def as_bytes(self) -> bytes:
        """What `save` writes, for a store that is no folder.

        Returns:
            The file's bytes.
        """
        return save({"vectors": self.vectors.float().contiguous()}, metadata=_metadata("direction", (self,)))

    @staticmethod
    def from_bytes(data: bytes) -> "Direction":
        """Reads what `as_bytes` gave.

        Args:
            data: the bytes.

        Returns:
            The direction.

        Raises:
            InputError: the bytes are of another format.
        """
        where = "A stored direction"
        try:
            tensors = load(data)
            text = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        except (SafetensorError, ValueError) as error:
            raise _unusable(where, error) from error
        return _single(tensors, _checked(text, where).directions, where)


@dataclass(frozen=True)
class Enhancement:
    """Directions and the gains actually used: a plan, a file of some tens of kB.

    Attributes:
        vectors: unit vectors, [layers, k, hidden].
        gains: what attention writes along each vector is multiplied by 1 + gain, [layers, k].
        directions: k directions with their provenance; their vectors are not stored again.
    """

    vectors: Tensor
    gains: Tensor
    directions: tuple[Direction, ...]

    @property
    def provenance(self) -> Provenance:
        """What the first direction was made from."""
        return self.directions[0].provenance

    @property
    def anatomy(self) -> Anatomy:
        """Where the model writes, as the first direction knows it."""
        return self.directions[0].anatomy

    @property
    def rank(self) -> int:
        """Directions a layer, k."""
        return self.gains.shape[1]

    def edited_layers(self) -> list[int]:
        """Layers with a gain other than zero.

        Returns:
            Their numbers, from 0, in order.
        """
        return [int(layer) for layer in torch.nonzero(self.gains.abs().sum(1)).flatten()]

    def scaled(self, scale: float) -> "Enhancement":
        """The same directions with every gain multiplied.

        Args:
            scale: the multiple. A gain stops at -1, where its component is gone, and never turns it.

        Returns:
            A new enhancement.
        """
        return replace(self, gains=(self.gains * scale).clamp_min(-1))

    def undone(self, fingerprint: str) -> "Enhancement":
        """What takes the edit out of weights that hold it: the inverse map, whose gains are -a / (1 + a).

        Args:
            fingerprint: of those weights.

        Returns:
            An enhancement of the same directions for those weights.

        Raises:
            InputError: a gain is -1, and what is gone cannot be brought back; or directions of a layer are not orthogonal, so that the
                inverse is no edit along them.
        """
        if bool((self.gains <= -1).any()):
            raise InputError("A gain is -1: what was taken out of the weights is gone. Use the base model.")
        edited = self.vectors * (self.gains != 0)[..., None]  # [layers, k, hidden]
        overlap = edited @ edited.transpose(1, 2)
        if float((overlap - torch.diag_embed(overlap.diagonal(dim1=1, dim2=2))).abs().max()) > ORTHOGONAL:
            raise InputError(
                "Directions of a layer overlap, so that taking the edit out of the weights is no edit along them. Use the base model."
            )
        directions = tuple(
            replace(d, provenance=replace(d.provenance, fingerprint=fingerprint)) for d in self.directions
        )
        return replace(self, gains=-self.gains / (1 + self.gains), directions=directions)

    @staticmethod
    def of(directions: Sequence[Direction]) -> "Enhancement":
        """All directions together, every gain zero.

        Args:
            directions: of one model.

        Returns:
            An enhancement of rank `len(directions)`.
        """
        vectors = torch.stack([direction.used() for direction in directions], 1)
        return Enhancement(vectors.contiguous(), torch.zeros(vectors.shape[:2]), tuple(directions))

    def combined(self, other: "Enhancement") -> "Enhancement":
        """Both sets of directions as one enhancement of higher rank.

        Args:
            other: of the same model.

        Returns:
            An enhancement whose rank is the sum of both.

        Raises:
            WrongModelError: the two were made for different models.
        """
        if other.provenance.fingerprint != self.provenance.fingerprint:
            raise WrongModelError("The two enhancements were made for different models. Find both on the same model.")
        return Enhancement(
            torch.cat([self.vectors, other.vectors], 1),
            torch.cat([self.gains, other.gains], 1),
            self.directions + other.directions,
        )

    def gram(self, layer: int) -> Tensor:
        """Cosines between the directions at a layer.

        Args:
            layer: from 0.

        Returns:
            [k, k].
        """
        return self.vectors[layer] @ self.vectors[layer].T

    def effective_rank(self, layer: int) -> float:
        """How many directions a layer has, counted by how different they are.

        Args:
            layer: from 0.

        Returns:
            Between 1 and k.
        """
        return effective_rank(self.vectors[layer])

    def require(self, fingerprint: str, layers: int, hidden_size: int) -> None:
        """Checks that this was made for a model.

        Args:
            fingerprint: of the model's weights.
            layers: of the model.
            hidden_size: width of its residual stream.

        Raises:
            WrongModelError: this was made for another model.
        """
        p = self.provenance
        if (p.layers, p.hidden_size) != (layers, hidden_size):
            raise WrongModelError(
                f"This was made for {p.model} ({p.layers} layers, {p.hidden_size} wide), and the model has {layers} layers, "
                f"{hidden_size} wide. Find a direction on this model."
            )
        if p.fingerprint != fingerprint:
            raise WrongModelError(
                f"This was made for {p.model} with weights {p.fingerprint[:12]}, and the model's weights are {fingerprint[:12]}: "
                "another checkpoint, another number type, or already enhanced. Pass the original model or find a direction on this one."
            )

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
        return _save(Path(path), "enhancement", self._tensors(), self.directions, overwrite=overwrite, recipe=recipe)

    def _tensors(self) -> dict[str, Tensor]:
        same = bool((self.vectors == self.vectors[:1]).all())
        return {"vectors": self.vectors[:1] if same else self.vectors, "gains": self.gains}

    def renamed(self, model: str) -> "Enhancement":
        """The same enhancement, of a model that is called otherwise.

        Args:
            model: the new name.

        Returns:
            A new enhancement.
        """
        directions = (replace(d, provenance=replace(d.provenance, model=model)) for d in self.directions)
        return replace(self, directions=tuple(directions))

    def as_bytes(self, recipe: str | None = None) -> bytes:
        """What `save` writes.

        Args:
            recipe: the command that makes it again.

        Returns:
            The file's bytes.
        """
        tensors = {k: v.float().contiguous() for k, v in self._tensors().items()}
        return save(tensors, metadata=_metadata("enhancement", self.directions, recipe))

    @staticmethod
    def load(path: Path | str) -> "Enhancement":
        """Reads a file that `save` wrote.

        Args:
            path: the file.

        Returns:
            The enhancement.

        Raises:
            InputError: the file is not an enhancement.
        """
        with _opened(Path(path), "enhancement") as (tensors, stored):
            gains, vectors = _matrix(tensors, "gains", 2, str(path)), _matrix(tensors, "vectors", 3, str(path))
            layers, rank = gains.shape
            if (
                len(vectors) not in (1, layers)
                or vectors.shape[1] != rank
                or rank != len(stored)
                or vectors.shape[2] * layers * rank > MOST
            ):
                raise _unusable(
                    path, f"gains {list(gains.shape)} and vectors {list(vectors.shape)} do not belong together"
                )
            vectors = vectors.expand(layers, -1, -1).contiguous()
            directions = tuple(_direction(part, vectors[:, i], str(path)) for i, part in enumerate(stored))
            return Enhancement(vectors, gains, directions)


def stored_bytes(layers: int, hidden: int, rank: int = 1) -> int:
    """About the size of a direction's or an enhancement's file, before there is one: its numbers and what it was made from."""
    return rank * (4 * layers * (hidden + 1) + 1500 + 250 * layers)


def kind_of(path: Path) -> str:
    """'direction' or 'enhancement'. Raises InputError for any other file."""
    with _file(path) as file:
        return _checked(file.metadata() or {}, str(path)).kind


@dataclass(frozen=True)
class _Stored:
    """One direction as a file's header describes it."""

    layer: int
    scope: Scope
    site: Site
    provenance: Provenance
    report: LayerReport
    anatomy: Anatomy


@dataclass(frozen=True)
class _Header:
    kind: Literal["direction", "enhancement"]
    directions: list[_Stored]
    recipe: str | None = None


@contextmanager
def _file(path: Path) -> Iterator[Any]:
    """The open file. What goes wrong with it is an InputError."""
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as a direction or enhancement: {error}. Check the path.") from error


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[tuple[dict[str, Tensor], list[_Stored]]]:
    """The tensors and directions of one of our files of a kind. Raises InputError for any other file."""
    with _file(path) as file:
        header = _checked(file.metadata() or {}, str(path))
        if header.kind != kind:
            raise InputError(f"{path} holds a {header.kind}, and a {kind} is needed here.")
        names = {"vectors", "gains"} & set(file.keys())
        yield {name: file.get_tensor(name) for name in names}, header.directions


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
        raise _unusable(where, error) from error


def _unusable(where: Path | str, why: object) -> InputError:
    return InputError(f"{where} is damaged: {' '.join(str(why).split())[:300]}. Make it again.")


def recipe_of(path: Path) -> str | None:
    """The recipe that a file carries, if any. Raises InputError for a file that is not ours."""
    with _file(path) as file:
        return _checked(file.metadata() or {}, str(path)).recipe


def _metadata(kind: str, directions: tuple[Direction, ...], recipe: str | None = None) -> dict[str, str]:
    """One key only: several would be stored in an order that differs from run to run."""
    headers = [
        {
            "layer": d.layer,
            "scope": d.scope,
            "site": d.site,
            "provenance": asdict(d.provenance),
            "report": asdict(d.report),
            "anatomy": asdict(d.anatomy),
        }
        for d in directions
    ]
    header = {"kind": kind, "format": FORMAT, "version": __version__, "directions": headers}
    if recipe is not None:
        header["recipe"] = recipe
    return {HEADER: json.dumps(header, ensure_ascii=False, sort_keys=True)}


def _save(
    path: Path,
    kind: str,
    tensors: dict[str, Tensor],
    directions: tuple[Direction, ...],
    *,
    overwrite: bool,
    recipe: str | None,
) -> Path:
    with written(path, overwrite=overwrite) as partial:
        # Not by `save_file`, whose errors do not say that a disk is full.
        plain = {k: v.float().contiguous() for k, v in tensors.items()}
        partial.write_bytes(save(plain, metadata=_metadata(kind, directions, recipe)))
    return path


def _matrix(tensors: dict[str, Tensor], name: str, dimensions: int, where: str) -> Tensor:
    matrix = tensors.get(name)
    if (
        matrix is None
        or matrix.dtype != torch.float32
        or matrix.ndim != dimensions
        or not bool(matrix.isfinite().all())
    ):
        raise _unusable(where, f"it has no {name} of finite float32 numbers in {dimensions} dimensions")
    return matrix


def _single(tensors: dict[str, Tensor], stored: list[_Stored], where: str) -> Direction:
    if len(stored) != 1:
        raise _unusable(where, f"it describes {len(stored)} directions")
    return _direction(stored[0], _matrix(tensors, "vectors", 2, where), where)


def _direction(stored: _Stored, vectors: Tensor, where: str) -> Direction:
    layers, hidden = vectors.shape
    provenance, anatomy, report = stored.provenance, stored.anatomy, stored.report
    lists = [value for value in vars(report).values() if isinstance(value, list)]
    if (
        {(provenance.layers, provenance.hidden_size), (anatomy.layers, anatomy.hidden_size)} != {(layers, hidden)}
        or any(len(value) not in (0, layers) for value in lists)
        or any(not 0 <= number < layers for number in (stored.layer, *(p.layer for p in anatomy.projections)))
    ):
        raise _unusable(where, f"its vectors {list(vectors.shape)} and what it says of them do not belong together")
    return Direction(vectors, stored.layer, stored.scope, stored.site, provenance, report, anatomy)
