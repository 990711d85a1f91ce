"""What a pass layer by layer costs on this machine: its two rates are measured on a block and on the files themselves."""

import time
from collections.abc import Sequence

from burnish.artifacts.checkpoint import Checkpoint
from burnish.model.cost import Cost, Machine, Work, block_sizes, predict
from burnish.model.layerwise import LayeredModel, Wanted, batch_tokens, plan_pass, timed_block

SECONDS = 0.3  # of reading
OPERATIONS = (2e11, 2e13)  # of computing, at most, on a CPU and on a GPU


def estimate(model: LayeredModel, wanted: Sequence[Wanted], machine: Machine) -> Cost:
    """The cost of reading the wanted states on a machine (see `measure`)."""
    planned = plan_pass(model, wanted)
    width = sum(len(s.tokens) for s in planned.sequences) / max(1, len(planned.sequences))
    blocks = block_sizes(model.network, model.network.config, model.anatomy)
    tensors = [model.weights.checkpoint.tensors[n] for n in model.weights.parts[f"{model.anatomy.stack}.0"]]
    stored = sum(t.end - t.start for t in tensors) / blocks[0].parameters
    return predict(
        blocks,
        model.anatomy.hidden_size,
        Work(len(planned.sequences), planned.tokens, width, len(planned.sites)),
        machine,
        stored=max(1, round(stored)),
        running=model.network.dtype.itemsize,
        batch=batch_tokens(model.device),
    )


def measure(model: LayeredModel, wanted: Sequence[Wanted]) -> Machine:
    """The machine's rates for this model: the first block with a batch of the wanted sequences, and reads all over the weights' files."""
    planned = plan_pass(model, wanted)
    size = block_sizes(model.network, model.network.config, model.anatomy)[0]
    most = min(batch_tokens(model.device), int(OPERATIONS[model.device.type == "cuda"] / (2 * size.active)) + 1)
    middle = planned.sequences[len(planned.sequences) // 2 :]
    rows = middle[: max(1, most // len(middle[0].tokens))]
    width = len(rows[-1].tokens)
    seconds = timed_block(model, rows)
    return Machine(size.operations(len(rows) * width, width) / seconds, _read_rate(model))


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
