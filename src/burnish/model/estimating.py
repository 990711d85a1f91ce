"""What a pass layer by layer costs on this machine: its two rates are measured in less than a second, on the files themselves."""

import time
from collections.abc import Sequence

import psutil  # type: ignore[import-untyped]
import torch
from torch import nn

from burnish.artifacts.checkpoint import DTYPES, Checkpoint
from burnish.model.cost import Cost, Machine, Work, block_sizes, predict
from burnish.model.layerwise import LayeredModel, Wanted, batch_tokens, plan_pass
from burnish.model.loading import text_config

SECONDS = 0.3  # for each of the two rates


def estimate(model: LayeredModel, wanted: Sequence[Wanted], machine: Machine | None = None) -> Cost:
    """The cost of reading the wanted states. machine: measured here where none is given."""
    planned = plan_pass(model, wanted)
    width = sum(len(s.tokens) for s in planned.sequences) / max(1, len(planned.sequences))
    blocks = block_sizes(model.network, model.network.config, model.anatomy)
    tensors = [model.weights.checkpoint.tensors[n] for n in model.weights.parts[f"{model.anatomy.stack}.0"]]
    stored = sum(t.end - t.start for t in tensors) / blocks[0].parameters
    return predict(
        blocks,
        model.anatomy.hidden_size,
        Work(len(planned.sequences), planned.tokens, width, len(planned.sites)),
        machine or measure(model),
        stored=max(1, round(stored)),
        running=model.network.dtype.itemsize,
        batch=batch_tokens(model.device),
    )


def measure(model: LayeredModel) -> Machine:
    """The machine's rates for this model: products of a block's largest matrix with a batch, and reads of the weights' files."""
    return Machine(_matmul_rate(model), _read_rate(model))


@torch.inference_mode()
def _matmul_rate(model: LayeredModel) -> float:
    block = model.network.get_submodule(f"{model.anatomy.stack}.{model.anatomy.layers - 1}")
    largest = max((p for p in block.parameters() if p.ndim > 1), key=lambda p: p.numel())
    tokens = batch_tokens(model.device)
    if largest.ndim == 3:  # of fused experts each gets its share of the tokens
        chosen = getattr(text_config(model.network.config), "num_experts_per_tok", 1)
        tokens = max(1, tokens * chosen // largest.shape[0])
    inputs, outputs = largest.shape[-1], largest.shape[-2]
    dtype, device = model.network.dtype, model.device
    left = torch.randn(tokens, inputs, device=device).to(dtype)
    weight = torch.randn(outputs, inputs, device=device).to(dtype)
    nn.functional.linear(left, weight)  # the first product compiles its kernel
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        nn.functional.linear(left, weight)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        done += 1
    return float(2 * tokens * inputs * outputs * done / (time.perf_counter() - started))


def _read_rate(model: LayeredModel) -> float:
    """Bytes a second over tensors spread over all blocks, from the disk or the system's cache as they come."""
    weights, anatomy = model.weights, model.anatomy
    names = [
        max(weights.parts[f"{anatomy.stack}.{i}"], key=lambda n: _bytes(weights.checkpoint, n))
        for i in range(anatomy.layers)
    ]
    spread = sorted(range(len(names)), key=lambda i: (i * 0.618034) % 1)  # any first few are spread evenly
    done, started = 0, time.perf_counter()
    for index in spread:
        weights.checkpoint.read(names[index])
        done += _bytes(weights.checkpoint, names[index])
        if time.perf_counter() - started > SECONDS:
            break
    return done / (time.perf_counter() - started)


def _bytes(checkpoint: Checkpoint, name: str) -> int:
    stored = checkpoint.tensors[name]
    return stored.end - stored.start


def free_memory(device: str) -> int:
    """Bytes that a model could take."""
    if torch.device(device if device != "auto" else "cpu").type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def loaded_bytes(checkpoint: Checkpoint, dtype: str) -> int:
    """What the weights take in memory, in a number type ("auto": as they are stored)."""
    sizes = [(t.end - t.start, DTYPES.get(t.dtype)) for t in checkpoint.tensors.values()]
    if dtype == "auto":
        return sum(size for size, _ in sizes)
    item = int(getattr(torch, dtype).itemsize)
    return sum(size if stored is None else size // stored.itemsize * item for size, stored in sizes)
