"""What a training will take, before it starts: an estimate from sizes, and the machine's own speed at a product of matrices."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from burnish.anatomy import LinearMap
from burnish.hybrid.barrier import AT_ONCE
from burnish.hybrid.tokenised import TrainingItem, tokens_in
from burnish.model.model import Model
from burnish.model.skeleton import text_config
from burnish.options import TrainOptions

OPTIMISER = 16  # bytes for each trained number: itself, its gradient, two running means
RUNTIME = 600 << 20  # bytes of Python and the libraries themselves
# What a block keeps of each token for the backward pass, norms, attention and the LoRA's own outputs included: so many hidden
# sizes, and so many sizes of the feed-forward network. Set by a measured training of SmolLM2-135M.
HIDDEN_KEPT, FEED_FORWARD_KEPT = 30, 8
LOGITS_KEPT = 6  # of the barrier's answers: logits, their logarithms and products, and gradients
BARRIER_TOKENS = 100  # of an everyday prompt and its answer, with the template
EFFICIENCY = 0.5  # of a training, against one large product
SIDE = 512


@dataclass(frozen=True)
class Estimate:
    """Peak memory and time, good to about a factor of two."""

    parameters: int
    trained: int
    tokens: int  # read by all steps, the barrier's left out
    steps: int
    bytes: int
    seconds: float


def estimate(
    model: Model,
    maps: Sequence[LinearMap],
    items: Sequence[TrainingItem],
    steps: int,
    options: TrainOptions,
    *,
    barred: bool,
    device: str,
) -> Estimate:
    """model: weights are not needed, only their shapes and number types; items: those of every step; barred: with a
    barrier; device: where it will run."""
    parameters = list(model.network.parameters())
    trained = options.rank * sum(m.inputs + m.outputs for m in maps)
    weights = sum(p.numel() * p.element_size() for p in parameters)
    count, tokens = sum(p.numel() for p in parameters), tokens_in(items)
    text = text_config(model.network.config)
    hidden = model.anatomy.hidden_size
    wide = int(getattr(text, "intermediate_size", None) or 4 * hidden)
    at_once = options.device_rows * max(i.length for i in items) * (2 if items[0].rejected else 1)
    kept = model.anatomy.layers * (HIDDEN_KEPT * hidden + FEED_FORWARD_KEPT * wide)
    if options.gradient_checkpointing:
        kept = model.anatomy.layers * hidden + kept // model.anatomy.layers
    barrier = 4 * AT_ONCE * BARRIER_TOKENS * LOGITS_KEPT * text.vocab_size if barred else 0
    barrier += 2 * options.barrier_prompts * options.barrier_tokens * text.vocab_size if barred else 0  # references
    # Forward 2, backward 2 (only through the weights, not to them), and once more where activations are computed again.
    products = count * tokens * (6 if options.gradient_checkpointing else 4)
    return Estimate(
        parameters=count,
        trained=trained,
        tokens=tokens,
        steps=steps,
        bytes=RUNTIME + weights + OPTIMISER * trained + at_once * kept * parameters[0].element_size() + barrier,
        seconds=products / (EFFICIENCY * speed(device)),
    )


def speed(device: str) -> float:
    """Operations a second of one product of two matrices."""
    place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    matrix = torch.ones(SIDE, SIDE, device=place)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # reading a number waits for the device
        best = min(best, time.perf_counter() - started)
    return float(2 * SIDE**3 / best)
