"""The live form of an enhancement: forward hooks on the projections' outputs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from burnish.anatomy import Anatomy, Projection
from burnish.artifacts.adapter import AdapterLayer
from burnish.artifacts.direction import Enhancement
from burnish.maths.gain import LowRankEdit, edit_output, low_rank_edit

Hook = Callable[[nn.Module, Any, Any], Any]
Hooks = Iterable[tuple[nn.Module, Hook]]


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Hooks are on their modules while this is open. handles: best made one by one, so that an error leaves none behind."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


def registered(hooks: Hooks) -> AbstractContextManager[None]:
    """The hooks are on their modules while this is open."""
    return hooked(module.register_forward_hook(hook) for module, hook in hooks)


def changing(change: Callable[[Tensor, Any], Tensor]) -> Hook:
    """A forward hook that changes what a module writes, and hands on whatever else it answers with.

    change: called with what was written and the module's arguments.
    """

    def apply(module: nn.Module, arguments: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0], arguments), *output[1:])
        return change(output, arguments)

    return apply


def live_edit(network: nn.Module, anatomy: Anatomy, enhancement: Enhancement) -> AbstractContextManager[None]:
    """Hooks every edited projection; layers with zero gains get no hook at all. Hooks are removed on exit."""
    edits = layer_edits(anatomy, enhancement, partial(norm_behind, network, anatomy))
    return registered((network.get_submodule(projection.path), _editing(edit)) for projection, edit in edits)


def live_layers(network: nn.Module, layers: Sequence[AdapterLayer]) -> AbstractContextManager[None]:
    """The live form of an adapter: hooks that add `B (A x)` to what each map writes, and its bias' change. Removed on exit."""
    modules = (network.get_submodule(layer.projection.path) for layer in layers)
    return registered((module, _adding(module, layer)) for module, layer in zip(modules, layers, strict=True))


def _adding(module: Any, layer: AdapterLayer) -> Hook:
    def change(write: Tensor, arguments: Any) -> Tensor:
        a, b = layer.a.to(write.device), layer.b.to(write.device)
        changed: Tensor = write.float() + (arguments[0].float() @ a.T) @ b.T
        if layer.bias is not None:
            changed = changed + (layer.bias.to(write.device) - module.bias.float())
        return changed.to(write.dtype)

    return changing(change)


def layer_edits(
    anatomy: Anatomy, enhancement: Enhancement, scale_of: Callable[[str], Tensor | None]
) -> Iterator[tuple[Projection, LowRankEdit]]:
    """The edit of each projection whose layer has a gain other than zero.

    scale_of: the effective weight [hidden] of the norm at a path, asked where one follows the projection.
    """
    edited = set(enhancement.edited_layers())
    for projection in anatomy.attention():
        if projection.layer in edited:
            layer = projection.layer
            scale = scale_of(projection.post_norm) if projection.post_norm else None
            yield projection, low_rank_edit(enhancement.vectors[layer].T, enhancement.gains[layer], scale)


def norm_behind(network: nn.Module, anatomy: Anatomy, path: str | None) -> Tensor | None:
    """The effective weight [hidden] of the norm at `path`, behind a projection; None where there is none."""
    return None if path is None else norm_weight(network.get_submodule(path), anatomy.hidden_size)


def norm_weight(norm: nn.Module, hidden_size: int) -> Tensor:
    """The norm's effective weight [hidden], float64 on the CPU, without its bias.

    Read from what it makes of alternating ones: their mean is zero and their mean square one, so that every norm maps them to its
    weight (and bias), whether it stores the weight or the weight minus one, and whether it takes the mean out or not.
    """
    signs = 1 - 2 * (torch.arange(hidden_size) % 2).double()
    return (_normed(norm, signs) - _normed(norm, torch.zeros(hidden_size))) * signs


def centres(norm: nn.Module, hidden_size: int) -> bool:
    """Whether a norm takes the mean out (LayerNorm): it then makes nothing of a constant."""
    change = _normed(norm, torch.ones(hidden_size)) - _normed(norm, torch.zeros(hidden_size))
    return bool(change.abs().max() < 1e-3 * norm_weight(norm, hidden_size).abs().max())


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes. While its weights wait elsewhere (a device map that offloads), accelerate's hook knows."""
    held = next(chain(module.parameters(), module.buffers()), None)  # a quantised map may hold buffers alone
    if held is not None and not held.is_meta:
        return held.device
    placed = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    return torch.device("cpu" if placed is None else placed)


@torch.inference_mode()
def _normed(norm: nn.Module, vector: Tensor) -> Tensor:
    """What a norm makes of a vector [hidden], float64 on the CPU."""
    parameter = next(norm.parameters(), None)
    dtype = torch.float32 if parameter is None else parameter.dtype
    normed: Tensor = norm(vector[None].to(device_of(norm), dtype))
    return normed[0].cpu().double().clone()


def _editing(edit: LowRankEdit) -> Hook:
    placed: dict[torch.device, LowRankEdit] = {}

    def change(write: Tensor, _: Any) -> Tensor:
        device = write.device
        if device not in placed:
            placed[device] = LowRankEdit(edit.left.to(device, torch.float32), edit.right.to(device, torch.float32))
        return edit_output(write, placed[device])

    return changing(change)
