"""The live form of an enhancement: forward hooks on the projections' outputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from burnish.anatomy import Anatomy, Projection
from burnish.artifacts.direction import Enhancement
from burnish.maths.gain import LowRankEdit, edit_output, low_rank_edit

Hook = Callable[[nn.Module, Any, Any], Any]


@contextmanager
def live_edit(network: nn.Module, anatomy: Anatomy, enhancement: Enhancement) -> Iterator[None]:
    """Hooks every edited projection; layers with zero gains get no hook at all. Hooks are removed on exit."""
    handles = []
    try:
        for projection, edit in layer_edits(network, anatomy, enhancement):
            handles.append(network.get_submodule(projection.path).register_forward_hook(_hook(edit)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def layer_edits(
    network: nn.Module, anatomy: Anatomy, enhancement: Enhancement
) -> Iterator[tuple[Projection, LowRankEdit]]:
    """The edit of each projection whose layer has a gain other than zero."""
    edited = set(enhancement.edited_layers())
    for projection in anatomy.attention():
        if projection.layer in edited:
            norm = network.get_submodule(projection.post_norm) if projection.post_norm else None
            yield (
                projection,
                low_rank_edit(
                    enhancement.vectors[projection.layer].T,
                    enhancement.gains[projection.layer],
                    None if norm is None else norm_weight(norm, anatomy.hidden_size),
                ),
            )


@torch.inference_mode()
def norm_weight(norm: nn.Module, hidden_size: int) -> Tensor:
    """The norm's effective weight [hidden], float64 on the CPU.

    A root-mean-square norm maps the all-ones vector to its weight, whether it stores the weight or the weight minus one.
    """
    parameter = next(norm.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    dtype = torch.float32 if parameter is None else parameter.dtype
    ones = torch.ones(1, hidden_size, device=device, dtype=dtype)
    weight: Tensor = norm(ones)
    return weight[0].double().cpu().clone()


def _hook(edit: LowRankEdit) -> Hook:
    placed: dict[torch.device, LowRankEdit] = {}

    def apply(module: nn.Module, arguments: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        if first.device not in placed:
            placed[first.device] = LowRankEdit(
                edit.left.to(first.device, torch.float32), edit.right.to(first.device, torch.float32)
            )
        changed = edit_output(first, placed[first.device])
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return apply
