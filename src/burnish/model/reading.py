"""Reading directions and answers: what a vector says as tokens, and where each token of a text lies along directions."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from burnish.model.capture import batches, decoder_of, one_stream
from burnish.model.loading import text_config
from burnish.model.model import Model
from burnish.options import Site

CPU_TOKENS, GPU_TOKENS = 512, 8192  # a batch, padding included


@torch.inference_mode()
def vocabulary_weights(model: Model, vectors: Tensor) -> Tensor:
    """Weight of every token's logit along vectors [n, hidden], read through the final norm and the unembedding: [n, vocabulary],
    float32, each row with mean 0 and standard deviation 1.

    The norm is taken as the linear map that it is once its scale is fixed (for a LayerNorm the mean goes first), and biases are
    left out: the "logit lens" (nostalgebraist, 2020) of a direction.
    """
    norm = _final_norm(model)
    rows = vectors.to(model.device, torch.float32)
    if norm is not None:
        if isinstance(norm, nn.LayerNorm):
            rows = rows - rows.mean(-1, keepdim=True)
        rows = rows * _scale(norm, rows.shape[-1]).to(rows)
    head = model.network.get_output_embeddings()
    dtype = model.network.dtype
    weights = (head(rows.to(dtype)) - head(torch.zeros_like(rows[:1]).to(dtype))).float()
    weights = weights - weights.mean(-1, keepdim=True)
    scaled: Tensor = weights / weights.std(-1, keepdim=True).clamp_min(1e-30)
    return scaled.cpu()


def _final_norm(model: Model) -> nn.Module | None:
    """The norm after the last block: of the modules beside the stack of blocks, the last one that is a norm."""
    inner = model.network.get_submodule(model.anatomy.stack.rpartition(".")[0])
    found = [m for _, m in inner.named_children() if "norm" in type(m).__name__.lower()]
    return found[-1] if found else None


def _scale(norm: nn.Module, hidden: int) -> Tensor:
    """A norm's weight [hidden], whether it stores the weight or the weight minus one; ones where it has none."""
    weight = getattr(norm, "weight", None)
    if isinstance(norm, nn.LayerNorm):
        return torch.ones(hidden) if weight is None else weight.float()
    dtype = torch.float32 if weight is None else weight.dtype
    ones = torch.ones(1, hidden, dtype=dtype, device="cpu" if weight is None else weight.device)
    scaled: Tensor = norm(ones)[0].float()
    return scaled


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
    found: list[Tensor] = [torch.zeros(0)] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: (len(sequences[i]), i))
    limit = CPU_TOKENS if model.device.type == "cpu" else GPU_TOKENS
    done = 0
    for size in batches([len(sequences[i]) for i in order], limit):
        members = order[done : done + size]
        states = _states(model, [sequences[i] for i in members], layer, site)
        for row, i in enumerate(members):
            found[i] = (states[row, : len(sequences[i])].float() @ vectors.T.to(states.device, torch.float32)).cpu()
        done += size
        if progress is not None:
            progress("reading tokens", done, len(sequences))
    return found


class _Reached(Exception):  # noqa: N818
    """Raised inside a forward pass when nothing further is needed."""


@torch.inference_mode()
def _states(model: Model, sequences: list[list[int]], layer: int, site: Site) -> Tensor:
    """[rows, tokens, hidden] at one layer; padding is on the right, where a causal model cannot see it."""
    ids = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
    kept: list[Tensor] = []
    stream = getattr(text_config(model.network.config), "altup_active_idx", None)

    def keep(module: nn.Module, arguments: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        kept.append(one_stream(hidden, stream).view(len(sequences), -1, hidden.shape[-1]))

    def stop(module: nn.Module, arguments: Any, output: Any) -> None:
        raise _Reached

    block = model.network.get_submodule(model.anatomy.stack)[layer]
    if site == "residual":
        modules = [block]
    else:
        own = [p for p in model.anatomy.attention() if p.layer == layer]
        modules = [model.network.get_submodule(p.post_norm or p.path) for p in own]
    handles = [module.register_forward_hook(keep) for module in modules]
    handles.append(block.register_forward_hook(stop))
    try:
        decoder_of(model)(input_ids=ids.to(model.device), use_cache=False)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(kept).sum(0)
