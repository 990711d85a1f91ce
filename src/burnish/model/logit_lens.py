"""What a vector says as tokens: read through the final norm and the unembedding."""

import torch
from torch import Tensor, nn

from burnish.anatomy import layout_of
from burnish.model.live import centres, norm_weight
from burnish.model.model import Model


@torch.inference_mode()
def vocabulary_weights(model: Model, vectors: Tensor) -> Tensor:
    """Weight of every token's logit along vectors [n, hidden], read through the final norm and the unembedding: [n, vocabulary],
    float32, each row with mean 0 and standard deviation 1.

    The norm is taken as the linear map that it is once its scale is fixed (for a LayerNorm the mean goes first), and biases are
    left out: the "logit lens" (nostalgebraist, 2020) of a direction.
    """
    norm, maps = after_blocks(model)
    rows = vectors.to(model.device, torch.float32)
    if norm is not None:
        if centres(norm, rows.shape[-1]):
            rows = rows - rows.mean(-1, keepdim=True)
        rows = rows * norm_weight(norm, rows.shape[-1]).to(rows)
    read, nothing = (t.to(model.network.dtype) for t in (rows, torch.zeros_like(rows[:1])))
    for linear in maps:
        read, nothing = linear(read), linear(nothing)
    weights = read.float() - nothing.float()
    weights = weights - weights.mean(-1, keepdim=True)
    scaled: Tensor = weights / weights.std(-1, keepdim=True).clamp_min(1e-30)
    return scaled.cpu()


def after_blocks(model: Model) -> tuple[nn.Module | None, list[nn.Module]]:
    """The norm after the last block (of the modules beside the stack, the last norm as wide as the hidden state), and the linear
    maps from there to the logits: the unembedding, behind a map to its own width where that is another (OPT-350M)."""
    hidden = model.anatomy.hidden_size
    beside = [m for _, m in model.network.get_submodule(model.anatomy.stack.rpartition(".")[0]).named_children()]
    norms = [m for m in beside if "norm" in type(m).__name__.lower() and _width(m) in (None, hidden)]
    head: nn.Module = model.network.get_output_embeddings()
    shape = layout_of(head)
    between = [m for m in beside if shape is not None and shape[2] != hidden and _maps(m, hidden, shape[2])]
    return (norms[-1] if norms else None), [*between, head]


def _width(norm: nn.Module) -> int | None:
    """None for a norm without a weight."""
    weight = getattr(norm, "weight", None)
    return None if weight is None else int(weight.numel())


def _maps(module: nn.Module, inputs: int, outputs: int) -> bool:
    shape = layout_of(module)
    return shape is not None and shape[1:] == (outputs, inputs)
