"""Derivatives of answers' log probabilities with respect to the gains.

Every batch row has gains of its own, so one backward pass gives a gradient for each row.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from burnish.errors import ModelError
from burnish.maths.gain import low_rank_edit
from burnish.model.capture import in_batches, padded
from burnish.model.device import widest
from burnish.model.live import device_of, norm_behind
from burnish.model.model import Model
from burnish.model.scoring import Item, only_at
from burnish.steps import Progress, advancing

CPU_TOKENS, GPU_TOKENS = 768, 8192  # a batch, padding included: the graph of a backward pass takes memory


@dataclass(frozen=True)
class Derivatives:
    """One row an item."""

    log_probability: Tensor  # [items], mean per token, float64
    gradient: Tensor  # [items, layers, k], of that mean


def derivatives(
    model: Model, items: Sequence[Item], vectors: Tensor, gains: Tensor, *, progress: Progress | None = None
) -> Derivatives:
    """Derivatives at `gains` [layers, k] along `vectors` [layers, k, hidden].

    Raises ModelError when the model computes no numbers.
    """
    edits = _edits(model, vectors)
    result = Derivatives(
        torch.zeros(len(items), dtype=torch.float64), torch.zeros((len(items), *gains.shape), dtype=torch.float64)
    )
    tokens = CPU_TOKENS if model.device.type == "cpu" else GPU_TOKENS
    advance = advancing(progress, "differentiating answers", len(items))
    for members in in_batches([len(i.prompt) + len(i.answer) for i in items], tokens):
        _batch(model, items, members, edits, gains, result)
        advance(len(members))
    if not bool(torch.isfinite(result.gradient).all()):
        raise ModelError(
            "The derivatives are not finite: the model's number type overflows. Load it with --dtype float32."
        )
    return result


@dataclass(frozen=True)
class _Edit:
    path: str
    layer: int
    left: Tensor  # [hidden, k], without the gains
    right: Tensor  # [k, hidden]


def _edits(model: Model, vectors: Tensor) -> list[_Edit]:
    edits = []
    for projection in model.anatomy.attention():
        scale = norm_behind(model.network, model.anatomy, projection.post_norm)
        part = low_rank_edit(vectors[projection.layer].T, torch.ones(vectors.shape[1]), scale)
        device = device_of(model.network.get_submodule(projection.path))
        left, right = (side.to(device, torch.float32) for side in (part.left, part.right))
        edits.append(_Edit(projection.path, projection.layer, left, right))
    return edits


@dataclass(frozen=True)
class PaddedBatch:
    """Items padded on the right, and where their answers' tokens are predicted."""

    ids: Tensor  # [items, tokens]
    rows: Tensor  # [answer tokens], the item of each
    positions: Tensor  # [answer tokens], where it is predicted
    target: Tensor  # [answer tokens]
    lengths: Tensor  # [items], answer tokens


def padded_batch(items: Sequence[Item], device: torch.device) -> PaddedBatch:
    ids = padded([item.prompt + item.answer for item in items])
    rows = torch.cat([torch.full((len(i.answer),), n) for n, i in enumerate(items)])
    positions = torch.cat([torch.arange(len(i.answer)) + len(i.prompt) - 1 for i in items])
    target = torch.cat([torch.tensor(i.answer) for i in items])
    lengths = torch.tensor([len(i.answer) for i in items])
    return PaddedBatch(*(t.to(device) for t in (ids, rows, positions, target, lengths)))


def _batch(
    model: Model,
    items: Sequence[Item],
    members: list[int],
    edits: list[_Edit],
    gains: Tensor,
    result: Derivatives,
) -> None:
    """Fills the members' rows of `result`."""
    rows = [items[i] for i in members]
    batch = padded_batch(rows, model.device)
    at_row, target, lengths = batch.rows, batch.target, batch.lengths
    gains_by_row = gains.to(model.device, torch.float32).expand(len(rows), -1, -1).clone().requires_grad_()
    with torch.enable_grad(), frozen(model.network), ExitStack() as stack:
        stack.enter_context(_hooked(model, edits, gains_by_row))
        stack.enter_context(only_at(model, at_row, batch.positions))
        logits = model.network(input_ids=batch.ids, use_cache=False).logits[0].float()
        with torch.no_grad():
            log_p = logits.log_softmax(-1)
            weights = log_p.exp()
            per_token = log_p.gather(1, target[:, None])[:, 0].to(widest(log_p.device))
            share = (1 / lengths)[at_row]
            pull = -weights * share[:, None]
            pull[torch.arange(len(target)), target] += share
        result.log_probability[members] = torch.zeros(len(rows), dtype=torch.float64).index_add_(
            0, at_row.cpu(), (per_token * share).cpu().double()
        )
        (gradient,) = torch.autograd.grad(logits, gains_by_row, pull)
        result.gradient[members] = gradient.cpu().double()


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """No weight asks for a gradient meanwhile."""
    asking = [p for p in network.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_()


@contextmanager
def _hooked(model: Model, edits: list[_Edit], gains: Tensor) -> Iterator[None]:
    handles = [model.network.get_submodule(edit.path).register_forward_hook(_gain_hook(edit, gains)) for edit in edits]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _gain_hook(edit: _Edit, gains: Tensor) -> Callable[[nn.Module, Any, Any], Any]:
    def apply(module: nn.Module, arguments: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        rows = first.view(len(gains), -1, first.shape[-1]).float()
        change = ((rows @ edit.right.T) * gains[:, edit.layer, None].to(first.device)) @ edit.left.T
        changed = (rows + change).to(first.dtype).view(first.shape)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return apply
