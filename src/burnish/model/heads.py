"""What an edit does through each attention head: derivatives, and the real thing with one share alone.

An output projection adds its heads' shares, `W x = sum_h W_h x_h`, so the coordinates along the directions split exactly:
`R W x = sum_h (R W_h) x_h`. A gain for every head and direction is therefore an edit like any other, and with the same gain
for all heads it is the ordinary one. What is no head's (a bias, or all of it where the inputs cannot be split) is one share
more, the last.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from burnish.anatomy import Projection
from burnish.artifacts.direction import Enhancement
from burnish.errors import QuantisedModelError
from burnish.model.capture import batches
from burnish.model.derivatives import frozen, padded_batch
from burnish.model.live import device_of, layer_edits, norm_weight
from burnish.model.model import Model
from burnish.model.scoring import Item, Progress, only_at
from burnish.model.skeleton import text_config
from burnish.model.weights import applied_weight, stored_weight

TOKENS = 768  # a batch, padding included


@dataclass(frozen=True)
class _Split:
    """One edited projection."""

    path: str
    layer: int
    left: Tensor  # [hidden, k], gains included
    right: Tensor  # [k, hidden]
    factors: Tensor | None  # R W by head [k, heads, head size]; None where it cannot be split


class HeadEdit:
    """An enhancement whose gains can be scaled by layer and head. shares: [layers, heads + 1], 1 is the enhancement itself."""

    def __init__(self, model: Model, enhancement: Enhancement) -> None:
        self.model = model
        self.heads = int(getattr(text_config(model.network.config), "num_attention_heads", 0) or 0)

        def scale_of(norm: str) -> Tensor:
            return norm_weight(model.network.get_submodule(norm), model.anatomy.hidden_size)

        self.splits = []
        for projection, edit in layer_edits(model.anatomy, enhancement, scale_of):
            place = device_of(model.network.get_submodule(projection.path))
            left, right = (t.to(place, torch.float32) for t in (edit.left, edit.right))
            factors = None
            if projection.kind == "attention" and self.heads and projection.inputs % self.heads == 0:
                factors = _head_factors(model.network, projection, right, self.heads)
            self.splits.append(_Split(projection.path, projection.layer, left, right, factors))

    @property
    def whole(self) -> list[int]:
        """Edited layers that cannot be split by head."""
        return sorted({s.layer for s in self.splits if s.factors is None})

    def shares(self, value: float = 0.0) -> Tensor:
        return torch.full((self.model.anatomy.layers, self.heads + 1), value)

    @contextmanager
    def applied(self, shares: Tensor) -> Iterator[None]:
        handles = [
            self.model.network.get_submodule(split.path).register_forward_hook(_hook(split, shares))
            for split in self.splits
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _head_factors(network: Any, projection: Projection, right: Tensor, heads: int) -> Tensor | None:
    """`R W` [k, heads, head size], None for a map that is not linear in its inputs."""
    weight = stored_weight(network.get_submodule(projection.path))
    if weight is None or weight.is_meta:  # quantised, packed or offloaded
        try:
            table = applied_weight(network, projection.path, projection.inputs).to(right.device)
        except QuantisedModelError:
            return None
    else:
        table = weight.float() if projection.layout == "out_in" else weight.float().T
    factors: Tensor = (right @ table).view(len(right), heads, -1).detach()
    return factors


def _hook(split: _Split, shares: Tensor) -> Callable[[nn.Module, Any, Any], Any]:
    def apply(module: nn.Module, arguments: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        layer_shares = shares[split.layer].to(first.device)
        unsplit = first.float() @ split.right.T  # [..., k]
        if split.factors is None:
            coordinates = unsplit * layer_shares[-1]
        else:
            inputs = arguments[0].float().unflatten(-1, split.factors.shape[1:])  # [..., heads, head size]
            parts = torch.einsum("...hd,khd->...hk", inputs, split.factors)
            unsplit = unsplit.view(*parts.shape[:-2], -1)
            coordinates = (parts * layer_shares[:-1, None]).sum(-2) + (unsplit - parts.sum(-2)) * layer_shares[-1]
            coordinates = coordinates.view(*first.shape[:-1], -1)
        changed = (first.float() + coordinates @ split.left.T).to(first.dtype)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return apply


def likelihood(
    model: Model,
    items: Sequence[Item],
    edit: HeadEdit,
    shares: Tensor,
    *,
    gradient: bool = False,
    progress: Progress | None = None,
) -> tuple[float, Tensor | None]:
    """Mean over the items of the log probability per token of their answers, and its derivative with respect to the shares."""
    lengths = [len(i.prompt) + len(i.answer) for i in items]
    order = sorted(range(len(items)), key=lambda i: (lengths[i], i))
    scaled = shares.to(model.device, torch.float32).clone().requires_grad_(gradient)
    total, slope = 0.0, torch.zeros_like(scaled)
    done = 0
    for size in batches([lengths[i] for i in order], TOKENS):
        batch = padded_batch([items[i] for i in order[done : done + size]], model.device)
        with torch.set_grad_enabled(gradient), frozen(model.network), edit.applied(scaled):
            with only_at(model, batch.rows, batch.positions):
                logits = model.network(input_ids=batch.ids, use_cache=False).logits[0].float()
            chosen = logits.log_softmax(-1).gather(1, batch.target[:, None])[:, 0]
            value = (chosen / batch.lengths[batch.rows]).sum() / len(items)
        total += float(value.detach())
        if gradient:
            slope += torch.autograd.grad(value, scaled)[0]
        done += size
        if progress is not None:
            progress("attributing to heads", done, len(items))
    return total, slope.detach().cpu() if gradient else None
