"""Directions and enhancements: small safetensors files that say where they come from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from burnish.anatomy import Anatomy
from burnish.artifacts.direction_file import Content, Provenance, Storable, StoredDirection, matrix_of, unusable
from burnish.errors import InputError, WrongModelError
from burnish.layers import layer_window
from burnish.maths.statistics import effective_rank
from burnish.options import DEFAULT_FACTOR, GainOptions, checked_factor

# Numbers of an enhancement's vectors: a file stores one layer where all are the same, and says how many there are.
MOST = 1 << 28
ORTHOGONAL = 1e-4  # cosine between directions of a layer up to which their edits do not act on each other


@dataclass(frozen=True)
class Direction(StoredDirection, Storable):
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

    _kind = "direction"
    vectors: Tensor

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

    def _content(self) -> Content:
        return {"vectors": self.vectors}, [self]

    @classmethod
    def _of(cls, tensors: dict[str, Tensor], directions: Sequence[StoredDirection], where: str) -> "Direction":
        if len(directions) != 1:
            raise unusable(where, f"it describes {len(directions)} directions")
        return _direction(directions[0], matrix_of(tensors, "vectors", 2, where), where)


@dataclass(frozen=True)
class Enhancement(Storable):
    """Directions and the gains actually used: a plan, a file of some tens of kB.

    Attributes:
        vectors: unit vectors, [layers, k, hidden].
        gains: what attention writes along each vector is multiplied by 1 + gain, [layers, k].
        directions: k directions with their provenance; their vectors are not stored again.
    """

    _kind = "enhancement"
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

    def renamed(self, model: str) -> "Enhancement":
        """The same enhancement, of a model that is called otherwise.

        Args:
            model: the new name.

        Returns:
            A new enhancement.
        """
        directions = (replace(d, provenance=replace(d.provenance, model=model)) for d in self.directions)
        return replace(self, directions=tuple(directions))

    def _content(self) -> Content:
        same = bool((self.vectors == self.vectors[:1]).all())
        return {"vectors": self.vectors[:1] if same else self.vectors, "gains": self.gains}, self.directions

    @classmethod
    def _of(cls, tensors: dict[str, Tensor], directions: Sequence[StoredDirection], where: str) -> "Enhancement":
        gains, vectors = matrix_of(tensors, "gains", 2, where), matrix_of(tensors, "vectors", 3, where)
        layers, rank = gains.shape
        if (
            len(vectors) not in (1, layers)
            or vectors.shape[1] != rank
            or rank != len(directions)
            or vectors.shape[2] * layers * rank > MOST
        ):
            raise unusable(where, f"gains {list(gains.shape)} and vectors {list(vectors.shape)} do not belong together")
        vectors = vectors.expand(layers, -1, -1).contiguous()
        return Enhancement(
            vectors, gains, tuple(_direction(stored, vectors[:, i], where) for i, stored in enumerate(directions))
        )


def _direction(stored: StoredDirection, vectors: Tensor, where: str) -> Direction:
    layers, hidden = vectors.shape
    provenance, anatomy, report = stored.provenance, stored.anatomy, stored.report
    lists = [value for value in vars(report).values() if isinstance(value, list)]
    if (
        {(provenance.layers, provenance.hidden_size), (anatomy.layers, anatomy.hidden_size)} != {(layers, hidden)}
        or any(len(value) not in (0, layers) for value in lists)
        or any(not 0 <= number < layers for number in (stored.layer, *(p.layer for p in anatomy.projections)))
    ):
        raise unusable(where, f"its vectors {list(vectors.shape)} and what it says of them do not belong together")
    return Direction(**vars(stored), vectors=vectors)
