"""Candidate edits of the model, each applied to the rows of a batch that are its own."""

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from burnish.anatomy import Projection, layout_of
from burnish.artifacts.direction import Enhancement
from burnish.artifacts.lora import LoraAdapter
from burnish.errors import ModelError, WrongModelError
from burnish.maths.gain import LowRankEdit, edit_rows
from burnish.model.live import Hook, changing, device_of, layer_edits, norm_behind, registered
from burnish.model.model import Model

RowHooks = list[tuple[nn.Module, Hook]]


@dataclass(frozen=True)
class Candidate:
    """What is done to the model in some rows of a batch."""

    name: str
    enhancement: Enhancement | None = None
    steering: Tensor | None = None  # [layers, hidden], added to the output of each block: a control vector
    adapter: LoraAdapter | None = None  # goes first: an enhancement strengthens what the adapted model writes
    adapter_scale: float = 1.0


def check_candidate(model: Model, candidate: Candidate) -> None:
    """Raises WrongModelError for an enhancement or adapter of another model, ModelError for an adapter that changes modules
    outside the decoder's blocks."""
    if candidate.enhancement is not None:
        candidate.enhancement.require(model.fingerprint, model.anatomy.layers, model.anatomy.hidden_size)
    if candidate.adapter is not None:
        check_adapter(model, candidate.adapter)


def check_adapter(model: Model, adapter: LoraAdapter) -> None:
    """Raises WrongModelError where a module is missing or has another shape, ModelError where it is outside the blocks."""
    modules = dict(model.network.named_modules(remove_duplicate=False))
    for path, (a, b) in adapter.factors.items():
        why = None
        if path not in modules:
            why = "which this model does not have"
        elif _block_of(model, path) is None:
            raise ModelError(
                f"The adapter '{adapter.name}' changes '{path}', which is outside the decoder's blocks "
                f"('{model.anatomy.stack}'); many candidates share a pass only inside them. Pass an adapter without it."
            )
        elif (shape := layout_of(modules[path])) is None:
            why = f"which is no linear map but a {type(modules[path]).__name__}"
        elif shape[1:] != (len(b), a.shape[1]):
            why = f"of {a.shape[1]} inputs and {len(b)} outputs, where this model has {shape[2]} and {shape[1]}"
        if why is not None:
            raise WrongModelError(
                f"The adapter '{adapter.name}' changes '{path}', {why}: it was made for another model than {model.name}. "
                "Pass the model named in its adapter_config.json."
            )


def _block_of(model: Model, path: str) -> int | None:
    """The index of the block that holds a module, None outside the blocks."""
    match = re.match(rf"{re.escape(model.anatomy.stack)}\.(\d+)\.", path)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class _Product:
    """The factors of one adapter in one module, and how strongly each candidate has it."""

    a: Tensor  # [r, inputs]
    b: Tensor  # [outputs, r]
    scales: Tensor  # [variants], 0 for candidates without this adapter


@dataclass
class RowEdits:
    """The hooks of several candidates, each applied to the rows of a batch that are its own."""

    model: Model
    candidates: list[Candidate]
    _factors: dict[Projection, tuple[Tensor, Tensor]] = field(
        default_factory=dict
    )  # [variants, hidden, k], [variants, k, hidden]
    _products: dict[str, list[_Product]] = field(default_factory=dict)  # by module path
    _steering: Tensor | None = None  # [variants, layers, hidden]

    def __post_init__(self) -> None:
        anatomy, network = self.model.anatomy, self.model.network
        edits: dict[Projection, dict[int, LowRankEdit]] = {}
        scale_of = partial(norm_behind, network, anatomy)
        for kind, candidate in enumerate(self.candidates):
            if candidate.enhancement is not None:
                for projection, edit in layer_edits(anatomy, candidate.enhancement, scale_of):
                    edits.setdefault(projection, {})[kind] = edit
        for projection, by_kind in edits.items():
            rank = max(edit.rank for edit in by_kind.values())
            left = torch.zeros(self.variants, projection.outputs, rank)
            right = torch.zeros(self.variants, rank, projection.outputs)
            for kind, edit in by_kind.items():
                left[kind, :, : edit.rank], right[kind, : edit.rank] = edit.left.float(), edit.right.float()
            device = device_of(network.get_submodule(projection.path))
            self._factors[projection] = left.to(device), right.to(device)
        # Candidates that differ in scale only, as in a dose curve, share one copy of an adapter.
        adapters: dict[LoraAdapter, Tensor] = {}
        for kind, candidate in enumerate(self.candidates):
            if candidate.adapter is not None:
                adapters.setdefault(candidate.adapter, torch.zeros(self.variants))[kind] = candidate.adapter_scale
        for adapter, scales in adapters.items():
            for path, (a, b) in adapter.factors.items():
                device = device_of(network.get_submodule(path))
                product = _Product(a.to(device, torch.float32), b.to(device, torch.float32), scales)
                self._products.setdefault(path, []).append(product)
        if any(c.steering is not None for c in self.candidates):
            none = torch.zeros(anatomy.layers, anatomy.hidden_size)
            self._steering = torch.stack([none if c.steering is None else c.steering.float() for c in self.candidates])

    @property
    def variants(self) -> int:
        return len(self.candidates)

    @property
    def first_block(self) -> int:
        """The first block that any candidate changes."""
        blocks = [p.layer for p in self._factors]
        blocks += [block for path in self._products if (block := _block_of(self.model, path)) is not None]
        if self._steering is not None:
            blocks += self._steering.abs().amax((0, 2)).nonzero().flatten().tolist()
        return min(blocks, default=self.model.anatomy.layers - 1)

    def hooks(self, variant_of_row: Tensor, width: int) -> RowHooks:
        """The hooks for a batch whose rows have these candidates and `width` tokens each."""
        network = self.model.network
        hooks: RowHooks = []
        # Adapters before enhancements: hooks of one module run in the order in which they were registered.
        for path, products in self._products.items():
            hooks.append((network.get_submodule(path), _adapter_hook(path, products, variant_of_row, width)))
        for projection, (left, right) in self._factors.items():
            hooks.append(
                (network.get_submodule(projection.path), _row_hook(left[variant_of_row], right[variant_of_row]))
            )
        if self._steering is not None:
            for layer, block in enumerate(network.get_submodule(self.model.anatomy.stack)):
                vectors = self._steering[variant_of_row, layer]
                if bool(vectors.any()):
                    hooks.append((block, _steering_hook(vectors.to(device_of(block)))))
        return hooks

    def rows(self, variant_of_row: Tensor, width: int) -> AbstractContextManager[None]:
        """Edits a batch whose rows have these candidates and `width` tokens each."""
        return registered(self.hooks(variant_of_row, width))


def _adapter_hook(path: str, products: list[_Product], variant_of_row: Tensor, width: int) -> Hook:
    parts = []
    for product in products:
        scales = product.scales[variant_of_row]
        members = scales.nonzero().flatten()
        parts.append((product, members.to(product.a.device), scales[members, None, None].to(product.a.device)))
    outputs = len(products[0].b)

    def change(write: Tensor, arguments: Any) -> Tensor:
        inputs: Tensor = arguments[0]
        tokens = inputs.shape[:-1].numel()
        # A module gets its tokens row by row (more than `width` where it also reads the cache), or as one list of all of them.
        apart = tokens == len(variant_of_row) * width or (inputs.ndim > 2 and len(inputs) == len(variant_of_row))
        if not apart or write.numel() != tokens * outputs:
            raise ModelError(
                f"An adapter changes '{path}', which does not map every token once (an expert that only some tokens are sent "
                "to, for example), so that candidates cannot be told apart in it. Pass an adapter without this module."
            )
        rows = inputs.reshape(len(variant_of_row), -1, inputs.shape[-1])
        changed = write.reshape(len(variant_of_row), -1, outputs).clone()
        for product, members, scales in parts:
            added = (rows[members].float() @ product.a.T) @ product.b.T
            changed[members] = (changed[members].float() + scales * added).to(write.dtype)
        return changed.view(write.shape)

    return changing(change)


def _row_hook(left: Tensor, right: Tensor) -> Hook:
    def change(write: Tensor, _: Any) -> Tensor:
        return edit_rows(write.view(len(left), -1, write.shape[-1]), left, right).view(write.shape)

    return changing(change)


def _steering_hook(vectors: Tensor) -> Hook:
    return changing(lambda write, _: (write.float() + vectors[:, None]).to(write.dtype))
