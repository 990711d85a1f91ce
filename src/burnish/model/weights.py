"""Weights as modules apply them, whatever they are stored as.

A linear map sends the rows of the identity to the columns of its weight. That holds for every quantised map that can be
called, so that no storage format needs to be known: what comes out is the weight that the model runs with.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from burnish.anatomy import Projection
from burnish.artifacts.adapter import AdapterLayer, adapter_layer
from burnish.errors import QuantisedModelError
from burnish.maths.gain import LowRankEdit
from burnish.model.live import device_of

IDENTITY_ROWS = 256
LINEAR = 0.01  # of the largest output: a share of the input must give that share of it
SHARE = 0.37  # not a half: steps that one falls on, its half often falls on too
FULL = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@torch.no_grad()
def network_layers(network: Any, edits: Iterator[tuple[Projection, LowRankEdit]]) -> list[AdapterLayer]:
    """The adapter's factors from a loaded model, for weights that are quantised or packed. Raises QuantisedModelError."""
    layers = []
    for projection, edit in edits:
        weight = applied_weight(network, projection.path, projection.inputs)
        bias = _bias(network, projection) if projection.bias else None
        layers.append(adapter_layer(projection, edit, weight, bias))
    return layers


@torch.no_grad()
def applied_weight(network: Any, path: str, inputs: int) -> Tensor:
    """The weight [outputs, inputs] that the map at `path` applies, float32 on the CPU, without its bias.

    Takes the memory of the weight and of `IDENTITY_ROWS` of its columns. Raises QuantisedModelError for a map that is not linear:
    one that rounds its inputs to fixed steps, or norms them.
    """
    module = network.get_submodule(path)
    device = device_of(module)
    identity = torch.eye(inputs, dtype=getattr(network, "dtype", torch.float32))
    with _without_bias(module):
        origin = module(torch.zeros_like(identity[:1]).to(device)).float()
        columns = []
        for start in range(0, inputs, IDENTITY_ROWS):
            rows = identity[start : start + IDENTITY_ROWS].to(device)
            part = module(rows).float() - origin
            columns.append(part.cpu())
            if start == 0 and _apart(module(rows * SHARE).float() - origin, part * SHARE) > LINEAR:
                raise QuantisedModelError(
                    f"'{path}' is not a linear map: it rounds its inputs to steps fixed in advance, or norms them, so that no adapter does "
                    "exactly what the enhancement does. Use the enhancement live (--form enhancement, then --with), or pass the "
                    "original (unquantised) weights."
                )
    return torch.cat(columns).T


def _bias(network: Any, projection: Projection) -> Tensor:
    """What a map that holds a bias gives for nothing, where the bias itself lies elsewhere (a device map that offloads)."""
    module = network.get_submodule(projection.path)
    bias: Tensor = module.bias
    if bias.is_meta:
        nothing = torch.zeros(1, projection.inputs, dtype=getattr(network, "dtype", torch.float32))
        bias = module(nothing.to(device_of(module)))[0]
    return bias.float().cpu()


def _apart(measured: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest number expected."""
    return float((measured - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


@contextmanager
def _without_bias(module: Any) -> Iterator[None]:
    """Takes the bias out: beside a large one, small weights would be lost to the rounding of their sum. A Conv1D needs its own."""
    bias = getattr(module, "bias", None)
    if bias is None or type(module).__name__ == "Conv1D":
        yield
        return
    module.bias = None
    try:
        yield
    finally:
        module.bias = bias
