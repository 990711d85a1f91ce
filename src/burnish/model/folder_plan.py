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
from burnish.model.device import Choice, choose
from burnish.model.live import layer_edits, norm_weight
from burnish.options import ModelOptions


@dataclass(frozen=True)
class FolderPlan:
    """A model folder seen without its weights."""

    folder: Path
    options: ModelOptions
    gguf: Path | None = None  # the file that the folder was converted from
    known: Anatomy | None = None  # from an enhancement made on these very weights: saves building the architecture

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.folder, self._module_names)

    def _module_names(self) -> dict[str, str]:
        from burnish.model.skeleton import module_names

        return module_names(self.network, self.checkpoint.tensors)

    @cached_property
    def choice(self) -> Choice:
        """The device and the number type that the model is run on and in."""
        return choose(self.folder, self.options)

    @cached_property
    def network(self) -> nn.Module:
        """The model on the meta device; norms that edits need are filled from the checkpoint."""
        from burnish.model.skeleton import skeleton

        return skeleton(self.folder, self.options)[0]

    @cached_property
    def anatomy(self) -> Anatomy:
        if self.known is not None:
            return self.known
        from burnish.model.skeleton import anatomy_of

        return anatomy_of(self.network, self.network.config)

    def edits(self, enhancement: Enhancement) -> Iterator[tuple[Projection, LowRankEdit]]:
        """The edit of each projection, from the enhancement and the few norm weights it needs."""
        return layer_edits(self.anatomy, enhancement, self.norm_scale)

    def norm_scales(self) -> dict[str, Tensor]:
        """The effective norm weight [hidden] after each projection that has one, by the projection's path."""
        return {p.path: self.norm_scale(p.post_norm) for p in self.anatomy.attention() if p.post_norm}

    def norm_scale(self, path: str) -> Tensor:
        """The effective weight [hidden] of the norm at `path`, read from the checkpoint."""
        norm = self.network.get_submodule(path)
        norm.to_empty(device="cpu")
        with torch.no_grad():
            for name, parameter in norm.named_parameters():
                tensor_name = self.checkpoint.match(path, name, tuple(parameter.shape))
                parameter.copy_(self.checkpoint.read(tensor_name))
        return norm_weight(norm, self.anatomy.hidden_size)
