"""Derivatives of answers' log probabilities with respect to the gains."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from burnish.errors import ModelError
from burnish.maths.gain import LowRankEdit, low_rank_edit
from burnish.model.imitation import frozen, run_answers
from burnish.model.live import Hook, changing, device_of, norm_behind, registered
from burnish.model.model import Model
from burnish.model.scoring import Item
from burnish.steps import Progress, advancing


def derivatives(
    model: Model, items: Sequence[Item], vectors: Tensor, gains: Tensor, *, progress: Progress | None = None
) -> Tensor:
    """Of each answer's mean log probability per token, at `gains` [layers, k] along `vectors` [layers, k, hidden].

    Returns [items, layers, k], float64. Raises ModelError when the model computes no numbers.
    """
    advance = advancing(progress, "differentiating answers", len(items))
    edits = _edits(model, vectors)
    slopes = []
    for item in items:
        slopes.append(_slope(model, item, edits, gains))
        advance(1)
    result = torch.stack(slopes)
    if not bool(torch.isfinite(result).all()):
        raise ModelError(
            "The derivatives are not finite: the model's number type overflows. Load it with --dtype float32."
        )
    return result


def _edits(model: Model, vectors: Tensor) -> list[tuple[nn.Module, int, LowRankEdit]]:
    """(projection, its layer, its edit without the gains)."""
    edits = []
    for projection in model.anatomy.attention():
        scale = norm_behind(model.network, model.anatomy, projection.post_norm)
        edit = low_rank_edit(vectors[projection.layer].T, torch.ones(vectors.shape[1]), scale)
        module = model.network.get_submodule(projection.path)
        left, right = (side.to(device_of(module), torch.float32) for side in (edit.left, edit.right))
        edits.append((module, projection.layer, LowRankEdit(left, right)))
    return edits


def _slope(model: Model, item: Item, edits: list[tuple[nn.Module, int, LowRankEdit]], gains: Tensor) -> Tensor:
    """[layers, k], float64, of one item."""
    leaf = gains.to(model.device, torch.float32, copy=True).requires_grad_()

    def differentiate(_: list[int], logits: Tensor) -> None:
        target = torch.tensor(item.answer, device=logits.device)[:, None]
        torch.autograd.backward(logits.log_softmax(-1).gather(1, target).mean())

    hooks = ((module, _editing(edit, leaf, layer)) for module, layer, edit in edits)
    with torch.enable_grad(), frozen(model.network), registered(hooks):
        run_answers(model, [item], differentiate, differentiable=True)
    assert leaf.grad is not None
    return leaf.grad.cpu().double()


def _editing(edit: LowRankEdit, gains: Tensor, layer: int) -> Hook:
    def change(write: Tensor, _: Any) -> Tensor:
        exact = write.float()
        added = (exact @ edit.right.T * gains[layer].to(write.device)) @ edit.left.T
        return (exact + added).to(write.dtype)

    return changing(change)
