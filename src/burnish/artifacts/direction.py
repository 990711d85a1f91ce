"""Directions and enhancements: small safetensors files that say where they come from."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor

from burnish import __version__
from burnish.anatomy import Anatomy
from burnish.artifacts.files import written
from burnish.errors import InputError, WrongModelError
from burnish.maths.statistics import effective_rank
from burnish.options import GainOptions, Scope, Site, checked_factor, layer_window

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
    versions: dict[str, str] = field(default_factory=dict)
    layer_convention: str = LAYER_CONVENTION


@dataclass(frozen=True)
class LayerReport:
    """Held-out quality of the direction at each layer (lists of one number per layer)."""

    auroc: list[float]
    d_prime: list[float]
    null_auroc: list[float]
    split_half_cosine: list[float]
    cosine_with_chosen: list[float]
    largest_share: list[float]
    held_out: int


@dataclass(frozen=True)
class Direction:
    """Unit vectors that separate the enhance prompts from the normal ones, with what they were made from."""

    vectors: Tensor  # [layers, hidden], one for every layer
    layer: int  # the layer whose vector a single direction uses
    scope: Scope
    site: Site
    provenance: Provenance
    report: LayerReport
    anatomy: Anatomy  # of the model it was found on

    def __str__(self) -> str:
        p, layer = self.provenance, self.layer
        return (
            f"Direction(layer {layer} of {p.layers}, {self.scope}, {self.site}, "
            f"separation {self.report.d_prime[layer]:.1f} sigma, AUROC {self.report.auroc[layer]:.3f} "
            f"(null {self.report.null_auroc[layer]:.3f}), {p.enhance_prompts} + {p.normal_prompts} prompts)"
        )

    @property
    def found(self) -> bool:
        """Whether the held-out separation is above its shuffled-label null."""
        return self.report.auroc[self.layer] > self.report.null_auroc[self.layer]

    def used(self) -> Tensor:
        """The vectors an enhancement uses, [layers, hidden]: the chosen layer's everywhere, or each layer's own."""
        if self.scope == "single":
            return self.vectors[self.layer].expand_as(self.vectors)
        return self.vectors

    def enhancement(self, factor: float | None = None, *, layers: str = GainOptions.layers) -> "Enhancement":
        """A plan with the same factor in a window of layers; nothing is touched. Layers without a vector (all zero, as directions of
        other tools may have them) get no gain. Raises InputError, LayerError."""
        factor = GainOptions().factor if factor is None else checked_factor(factor)
        gains = torch.zeros(self.provenance.layers, 1)
        gains[list(layer_window(layers, self.provenance.layers))] = factor
        used = self.used()
        gains[~used.any(dim=1)] = 0
        return Enhancement(used[:, None, :].contiguous(), gains, (self,))

    def save(self, path: Path | str, *, overwrite: bool = False) -> Path:
        """Writes one safetensors file."""
        return _save(Path(path), "direction", {"vectors": self.vectors}, (self,), overwrite=overwrite)

    @staticmethod
    def load(path: Path | str) -> "Direction":
        """Raises InputError for a file that is not a direction, or a damaged one."""
        with _damage(str(path)):
            tensors, headers = _load(Path(path), "direction")
            found = _direction(headers[0], tensors["vectors"])
            _require_shapes((found,))
            return found

    def as_bytes(self) -> bytes:
        """What `save` writes, for a store that is no folder."""
        return save({"vectors": self.vectors.float().contiguous()}, metadata=_metadata("direction", (self,)))

    @staticmethod
    def from_bytes(data: bytes) -> "Direction":
        """Raises InputError for bytes of another format."""
        length = int.from_bytes(data[:8], "little")
        header = _checked(json.loads(data[8 : 8 + length]).get("__metadata__", {}), "A stored direction")
        return _direction(header["directions"][0], load(data)["vectors"])


@dataclass(frozen=True)
class Enhancement:
    """Directions and the gains actually used: a plan, a file of some tens of kB."""

    vectors: Tensor  # [layers, k, hidden]
    gains: Tensor  # [layers, k]
    directions: tuple[Direction, ...]  # provenance; their vectors are not stored again

    @property
    def provenance(self) -> Provenance:
        return self.directions[0].provenance

    @property
    def anatomy(self) -> Anatomy:
        return self.directions[0].anatomy

    @property
    def rank(self) -> int:
        return self.gains.shape[1]

    def edited_layers(self) -> list[int]:
        """Layers with a gain other than zero."""
        return [int(layer) for layer in torch.nonzero(self.gains.abs().sum(1)).flatten()]

    def scaled(self, scale: float) -> "Enhancement":
        """The same directions with every gain multiplied; a gain stops at -1, where its component is gone, and never turns it."""
        return replace(self, gains=(self.gains * scale).clamp_min(-1))

    def combined(self, other: "Enhancement") -> "Enhancement":
        """Both sets of directions as one enhancement of higher rank. Raises WrongModelError for two different models."""
        if other.provenance.fingerprint != self.provenance.fingerprint:
            raise WrongModelError("The two enhancements were made for different models. Find both on the same model.")
        return Enhancement(
            torch.cat([self.vectors, other.vectors], 1),
            torch.cat([self.gains, other.gains], 1),
            self.directions + other.directions,
        )

    def gram(self, layer: int) -> Tensor:
        """Cosines between the directions at a layer, [k, k]."""
        return self.vectors[layer] @ self.vectors[layer].T

    def effective_rank(self, layer: int) -> float:
        return effective_rank(self.vectors[layer])

    def require(self, fingerprint: str, layers: int, hidden_size: int) -> None:
        """Raises WrongModelError unless this was made for the model with that fingerprint."""
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

    def save(self, path: Path | str, *, overwrite: bool = False) -> Path:
        return _save(Path(path), "enhancement", self._tensors(), self.directions, overwrite=overwrite)

    def _tensors(self) -> dict[str, Tensor]:
        same = bool((self.vectors == self.vectors[:1]).all())
        return {"vectors": self.vectors[:1] if same else self.vectors, "gains": self.gains}

    def renamed(self, model: str) -> "Enhancement":
        """The same enhancement, of a model that is called otherwise."""
        directions = (replace(d, provenance=replace(d.provenance, model=model)) for d in self.directions)
        return replace(self, directions=tuple(directions))

    def as_bytes(self) -> bytes:
        """What `save` writes."""
        tensors = {k: v.float().contiguous() for k, v in self._tensors().items()}
        return save(tensors, metadata=_metadata("enhancement", self.directions))

    @staticmethod
    def load(path: Path | str) -> "Enhancement":
        """Raises InputError for a file that is not an enhancement, or a damaged one."""
        with _damage(str(path)):
            tensors, headers = _load(Path(path), "enhancement")
            gains = tensors["gains"]
            vectors = tensors["vectors"].expand(len(gains), len(headers), -1).contiguous()
            directions = tuple(_direction(header, vectors[:, i]) for i, header in enumerate(headers))
            if tuple(gains.shape) != tuple(vectors.shape[:2]) or not gains.isfinite().all():
                raise ValueError("its gains do not fit its directions")
            _require_shapes(directions)
            return Enhancement(vectors, gains, directions)


def kind_of(path: Path) -> str:
    """'direction' or 'enhancement'. Raises InputError for any other file."""
    with _damage(str(path)):
        return str(_header(path)["kind"])


def _header(path: Path) -> dict[str, Any]:
    """The metadata of one of our files. Raises InputError for any other file, or one of another format."""
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as a direction or enhancement: {error}. Check the path.") from error
    return _checked(metadata, str(path))


def _checked(metadata: dict[str, str], where: str) -> dict[str, Any]:
    if HEADER not in metadata:
        raise InputError(
            f"{where} was not written by Burnish. Pass a file made by `burnish find` or `burnish enhance`."
        )
    header: dict[str, Any] = json.loads(metadata[HEADER])
    if header["format"] != FORMAT:
        raise InputError(
            f"{where} has format {header['format']}, and this version reads {FORMAT}. Make it again with this version."
        )
    return header


def _metadata(kind: str, directions: tuple[Direction, ...]) -> dict[str, str]:
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
    return {HEADER: json.dumps(header, ensure_ascii=False, sort_keys=True)}


def _save(
    path: Path, kind: str, tensors: dict[str, Tensor], directions: tuple[Direction, ...], *, overwrite: bool
) -> Path:
    with written(path, overwrite=overwrite) as partial:
        save_file(
            {k: v.float().contiguous() for k, v in tensors.items()}, partial, metadata=_metadata(kind, directions)
        )
    return path


def _load(path: Path, kind: str) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    header = _header(path)
    if header["kind"] != kind:
        raise InputError(f"{path} holds a {header['kind']}, and a {kind} is needed here.")
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors, header["directions"]


@contextmanager
def _damage(where: str) -> Iterator[None]:
    """Turns what a damaged or made-up file leads to into an InputError: files come from strangers, too."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{where} is damaged or was not written by Burnish ({type(error).__name__}: {error}). Fetch or make it again."
        ) from error


def _require_shapes(directions: tuple[Direction, ...]) -> None:
    """Raises ValueError unless every direction has finite vectors [layers, hidden] of the one model that all name."""
    if not directions:
        raise ValueError("it holds no direction")
    for direction in directions:
        p, vectors = direction.provenance, direction.vectors
        if tuple(vectors.shape) != (p.layers, p.hidden_size) or not vectors.isfinite().all():
            raise ValueError("its vectors do not fit the model that it names")
        if not 0 <= direction.layer < p.layers:
            raise ValueError(f"it names layer {direction.layer} of {p.layers}")


def _direction(header: dict[str, Any], vectors: Tensor) -> Direction:
    return Direction(
        vectors=vectors,
        layer=header["layer"],
        scope=header["scope"],
        site=header["site"],
        provenance=Provenance(**header["provenance"]),
        report=LayerReport(**header["report"]),
        anatomy=Anatomy.from_dict(header["anatomy"]),
    )
