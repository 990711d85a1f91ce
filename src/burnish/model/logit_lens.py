"""Reading directions and answers: what a vector says as tokens, and where each token of a text lies along directions."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from burnish.anatomy import layout_of
from burnish.model.capture import (
    CPU_TOKENS,
    GPU_TOKENS,
    ReachedError,
    attention_writes,
    batches,
    one_stream,
    stream_of,
)
from burnish.model.live import centres, norm_weight
from burnish.model.model import Model
from burnish.model.shared_prefix import decoder_of
from burnish.options import Site


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


def token_projections(
    model: Model,
    sequences: Sequence[list[int]],
    vectors: Tensor,
    layer: int,
    *,
    site: Site = "residual",
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Tensor]:
    """Every token of every sequence along `vectors` [k, hidden] at the output of block `layer` (site residual) or in what its
    attention writes: [tokens, k], float32."""
    projections: list[Tensor] = [torch.zeros(0)] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: (len(sequences[i]), i))
    model.require_all_fit(sequences)
    limit = CPU_TOKENS if model.device.type == "cpu" else GPU_TOKENS
    done = 0
    for size in batches([len(sequences[i]) for i in order], limit):
        members = order[done : done + size]
        states = _states(model, [sequences[i] for i in members], layer, site)
        for row, i in enumerate(members):
            projections[i] = (
                states[row, : len(sequences[i])].float() @ vectors.T.to(states.device, torch.float32)
            ).cpu()
        done += size
        if progress is not None:
            progress("reading tokens", done, len(sequences))
    return projections


@torch.inference_mode()
def _states(model: Model, sequences: list[list[int]], layer: int, site: Site) -> Tensor:
    """[rows, tokens, hidden] at one layer; padding is on the right, where a causal model cannot see it."""
    ids = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
    parts: list[Tensor] = []
    stream = stream_of(model)

    def keep(module: nn.Module, arguments: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        parts.append(one_stream(hidden, stream).view(len(sequences), -1, hidden.shape[-1]))

    def stop(module: nn.Module, arguments: Any, output: Any) -> None:
        raise ReachedError

    block = model.network.get_submodule(model.anatomy.stack)[layer]
    modules = [block] if site == "residual" else attention_writes(model, layer)
    handles = [module.register_forward_hook(keep) for module in modules]
    handles.append(block.register_forward_hook(stop))
    try:
        decoder_of(model)(input_ids=ids.to(model.device), use_cache=False)
    except ReachedError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(parts).sum(0)
