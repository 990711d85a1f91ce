"""Which known directions an audited edit goes along."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from burnish.artifacts.audit import SAME, Audit
from burnish.maths.low_rank import equal_gain_spans
from burnish.maths.statistics import unit


@dataclass(frozen=True)
class LayerMatch:
    """The directions of one projection beside the known ones."""

    layer: int
    tensor: str
    cosines: dict[str, float]  # by name: |cosine| with the closest direction, or with the closest span of equal gains
    best: str


@dataclass(frozen=True)
class NameMatch:
    """One known direction beside the whole edit."""

    name: str
    mean: float  # |cosine| over the edited projections
    smallest: float
    best_in: int  # projections in which no other name is closer


@dataclass(frozen=True)
class Matches:
    layers: tuple[LayerMatch, ...]  # projections with a directional change
    names: tuple[NameMatch, ...]  # closest first
    chance: float  # 95 % of random directions have a smaller |cosine| with a given one
    own: tuple[str, ...] = ()  # the names that come from the audited folder's own record

    def joined(self, other: "Matches") -> "Matches":
        """The matches of the same audit with further names."""
        layers = []
        for mine, theirs in zip(self.layers or other.layers, other.layers or self.layers, strict=True):
            cosines = {**mine.cosines, **theirs.cosines}
            layers.append(replace(mine, cosines=cosines, best=max(cosines, key=lambda name: cosines[name])))
        return Matches(tuple(layers), _names(layers), self.chance, self.own)


def match(audit: Audit, known: Mapping[str, Tensor], *, recorded: Sequence[str] = ()) -> Matches:
    """Compares the directions of every directional change with known ones.

    known: vectors [layers, hidden] by name, of any length but 0; recorded: the names among them that the folder itself brought.
    """
    layers: list[LayerMatch] = []
    for entry in audit.of("directional") if known else []:
        spans = equal_gain_spans(entry.change)
        cosines = {
            name: max(float((span.T @ unit(vectors[entry.layer])).norm()) for span in spans)
            for name, vectors in known.items()
        }
        layers.append(LayerMatch(entry.layer, entry.tensor, cosines, max(cosines, key=lambda name: cosines[name])))
    hidden = next((vectors.shape[1] for vectors in known.values()), 1)
    return Matches(tuple(layers), _names(layers), 1.96 / hidden**0.5, tuple(recorded))


def nearest_layers(audit: Audit, known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For an edit along the same direction in every layer: of each known direction [layers, hidden] the layer that lies closest,
    repeated, because one layer's direction was used throughout. Other edits are compared layer by layer, as they are."""
    edited = audit.of("directional")
    if not edited or (audit.agreement or 0.0) < SAME:
        return dict(known)
    spans = equal_gain_spans(edited[0].change)
    nearest = {}
    for name, vectors in known.items():
        closeness = torch.stack([(unit(vectors) @ span).norm(dim=1) for span in spans]).amax(0)  # [layers]
        layer = int(closeness.argmax())
        nearest[f"{name}, layer {layer}"] = vectors[layer].expand_as(vectors)
    return nearest


def _names(layers: Sequence[LayerMatch]) -> tuple[NameMatch, ...]:
    names = [
        NameMatch(
            name,
            mean=sum(layer.cosines[name] for layer in layers) / len(layers),
            smallest=min(layer.cosines[name] for layer in layers),
            best_in=sum(layer.best == name for layer in layers),
        )
        for name in (layers[0].cosines if layers else ())
    ]
    return tuple(sorted(names, key=lambda n: -n.mean))
