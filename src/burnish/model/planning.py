"""A plan for a folder of weights: anatomy and edits without loading the model."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from burnish.anatomy import Anatomy, Projection
from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.direction import Enhancement
from burnish.maths.gain import LowRankEdit
from burnish.model.live import layer_edits, norm_weight
from burnish.model.loading import anatomy_of, skeleton
from burnish.options import ModelOptions


@dataclass(frozen=True)
class FolderPlan:
    """A model folder seen without its weights."""

    folder: Path
    options: ModelOptions

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.folder)

    @cached_property
    def _parts(self) -> tuple[nn.Module, Anatomy]:
        network, config = skeleton(self.folder, self.options)
        return network, anatomy_of(network, config)

    @property
    def anatomy(self) -> Anatomy:
        return self._parts[1]

    @property
    def network(self) -> nn.Module:
        """The model on the meta device; norms that edits need are filled from the checkpoint."""
        return self._parts[0]

    def edits(self, enhancement: Enhancement) -> Iterator[tuple[Projection, LowRankEdit]]:
        """The edit of each projection, from the enhancement and the few norm weights it needs."""
        edited = set(enhancement.edited_layers())
        for projection in self.anatomy.attention():
            if projection.post_norm and projection.layer in edited:
                self._fill(projection.post_norm)
        return layer_edits(self.network, self.anatomy, enhancement)

    def norm_scales(self) -> dict[str, Tensor]:
        """The effective norm weight [hidden] after each projection that has one, by the projection's path."""
        found = {}
        for projection in self.anatomy.attention():
            if projection.post_norm:
                self._fill(projection.post_norm)
                norm = self.network.get_submodule(projection.post_norm)
                found[projection.path] = norm_weight(norm, self.anatomy.hidden_size)
        return found

    def _fill(self, path: str) -> None:
        norm = self.network.get_submodule(path)
        norm.to_empty(device="cpu")
        with torch.no_grad():
            for name, parameter in norm.named_parameters():
                stored = self.checkpoint.match(path, name, tuple(parameter.shape))
                parameter.copy_(self.checkpoint.read(stored))
