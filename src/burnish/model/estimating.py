"""What a model takes: in memory as a whole, and in reading, states and memory layer by layer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from burnish.model.layerwise import LayeredModel, Wanted, batch_tokens, plan_pass


@dataclass(frozen=True)
class Cost:
    """Of passes layer by layer, in bytes."""

    disk_bytes_read: int
    states_bytes: int  # hidden states and what is kept of them, on disk beyond `--states-memory`
    peak_bytes: int  # in memory, besides the program and the states


def estimate(model: LayeredModel, passes: Iterable[Sequence[Wanted]]) -> Cost:
    """The cost of reading the wanted states, one pass after the other."""
    planned = [plan_pass(model, wanted) for wanted in passes]
    tensors, hidden = model.weights.checkpoint.tensors, model.anatomy.hidden_size
    item = model.network.dtype.itemsize
    parts = [model.weights.parts[f"{model.anatomy.stack}.{i}"] for i in range(model.anatomy.layers)]
    stored = [sum(tensors[n].end - tensors[n].start for n in names) for names in parts]
    blocks = [list(block.parameters()) for block in model.network.get_submodule(model.anatomy.stack).children()]
    largest = max(sum(p.numel() for p in block) for block in blocks)
    joined = max(
        sum(p.numel() for p in block if p.ndim == 3) for block in blocks
    )  # experts are put together from parts
    widest = max(hidden, *(p.shape[-2] for block in blocks for p in block if p.ndim > 1))
    activations = 4 * batch_tokens(model.device) * widest * item
    states = [p.tokens * hidden * item + 4 * len(p.sequences) * len(parts) * hidden * len(p.sites) for p in planned]
    return Cost(len(planned) * sum(stored), max(states), (largest + joined) * item + max(stored) + activations)
