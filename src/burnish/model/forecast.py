"""What a command will take, before it starts: work in tokens, seconds on this machine, and memory.

Good to about a third on the machine it was set on (SmolLM2-135M on one core of a server's CPU).
"""

import functools
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from burnish.artifacts.checkpoint import Checkpoint
from burnish.model.device import ANY, accelerator, choose, loaded_bytes
from burnish.model.model import Model
from burnish.model.shared_prefix import shared_prefix
from burnish.model.skeleton import text_config
from burnish.options import ModelOptions
from burnish.prompts import PromptSet
from burnish.steps import lasting

DECODED = 2.5  # tokens read that a written one costs: small products, and keys and values copied
READ = 1.36  # times the matrix products' own time: attention and norms
SCORED = 1.6  # and where the softmax over the vocabulary comes to it
PROBE_S = 0.2  # seconds of matrix products that are timed
SIZE = 1024
SAMPLED = 24  # prompts of a set whose lengths are looked at
PROGRAM = 700 << 20  # bytes of Python and the libraries
BATCH = 2048  # tokens whose activations or logits are held at once on a CPU
WIDE = 12  # vectors as wide as the feed-forward network that a token of a batch holds


@dataclass(frozen=True)
class Work:
    """What is done to tokens. read: passed through every block; scored: through the unembedding too; written: generated; logits: of those that are compared over the
    vocabulary, the most at once; cached: whose keys and values are held, the most at once."""

    read: float = 0.0
    written: float = 0.0
    scored: float = 0.0
    logits: float = 0.0
    cached: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        sums = self.read + other.read, self.written + other.written, self.scored + other.scored
        return Work(*sums, max(self.logits, other.logits), max(self.cached, other.cached))

    def __mul__(self, times: float) -> "Work":
        return replace(self, read=self.read * times, written=self.written * times, scored=self.scored * times)

    @property
    def tokens(self) -> float:
        """All of it, as tokens that are read."""
        return self.read + self.scored + DECODED * self.written


@dataclass(frozen=True)
class Forecast:
    """tokens: of a forward pass; bytes: of memory at the peak."""

    tokens: int
    seconds: float
    bytes: int

    def __str__(self) -> str:
        return f"about {lasting(max(1, self.seconds))} and {self.bytes / 1e9:.1f} GB of memory ({self.tokens:,} tokens of a forward pass)"


def forecast(model: Model, work: Work, options: ModelOptions) -> Forecast:
    """The cost of work on this machine.

    Args:
        model: its outline; weights are not needed.
        work: in tokens.
        options: how it will be loaded.

    Returns:
        Seconds by the matrix products that this machine does, and the weights, a batch's activations and its logits.
    """
    choice = choose(model.folder, options)
    dtype = getattr(torch, choice.dtype)
    seconds = operations(model, work) / products_a_second(dtype, device_of(choice.options.device))
    text = text_config(model.network.config)
    wide = int(getattr(text, "intermediate_size", None) or 4 * model.anatomy.hidden_size)
    weights = loaded_bytes(Checkpoint(model.folder), choice.options.dtype)
    held = (WIDE * BATCH * wide + work.cached * keys_and_values(model)) * dtype.itemsize + 4 * work.logits * int(
        text.vocab_size
    )
    return Forecast(round(work.tokens), seconds, round(PROGRAM + weights + held))


def operations(model: Model, work: Work) -> float:
    """Floating-point operations in matrix products that take as long as the work does."""
    blocks, total = parameters(model)
    return 2 * READ * blocks * work.read + 2 * SCORED * total * (work.tokens - work.read)


def parameters(model: Model) -> tuple[int, int]:
    """(those in the blocks, and with the unembedding)."""
    network: Any = model.network
    blocks = sum(p.numel() for p in network.get_submodule(model.anatomy.stack).parameters())
    return blocks, blocks + network.get_input_embeddings().weight.numel()


def keys_and_values(model: Model) -> int:
    """Numbers that are kept of a token, in all layers."""
    text = text_config(model.network.config)
    heads = int(getattr(text, "num_attention_heads", None) or 1)
    shared = int(getattr(text, "num_key_value_heads", None) or heads)
    size = int(getattr(text, "head_dim", None) or model.anatomy.hidden_size // heads)
    return 2 * model.anatomy.layers * shared * size


def lengths(model: Model, prompts: PromptSet, system: str | None = None) -> tuple[int, float]:
    """(prompts, tokens of one beyond what all begin with, which is run once)."""
    rows = [model.tokens(prompt, system) for prompt in prompts.spread(SAMPLED).prompts]
    shared = shared_prefix(rows)
    return len(prompts), sum(len(row) - shared for row in rows) / max(1, len(rows))


def answering(model: Model, prompts: PromptSet, tokens: int, system: str | None = None) -> Work:
    """Answers of `tokens` tokens to every prompt."""
    count, length = lengths(model, prompts, system)
    return Work(count * length, count * tokens)


def comparing(model: Model, prompts: PromptSet, tokens: float, candidates: int) -> Work:
    """Answers of `tokens` tokens scored under the model as it is and some candidates."""
    count, length = lengths(model, prompts)
    variants = 1 + candidates
    return Work(scored=count * (length + tokens) * variants, logits=min(BATCH, count * tokens * variants))


def together(parts: Iterable[Work]) -> Work:
    return functools.reduce(Work.__add__, parts, Work())


def device_of(name: str) -> torch.device:
    """Where products are timed."""
    return torch.device((accelerator() or "cpu") if name in ANY else name)


@functools.cache
def products_a_second(dtype: torch.dtype, device: torch.device | str = "cpu") -> float:
    """Floating-point operations a second in matrix products of a middling size."""
    rows = torch.ones(SIZE // 2, SIZE, dtype=dtype, device=device)
    weight = torch.ones(SIZE, SIZE, dtype=dtype, device=device)
    _ = float((rows @ weight)[0, 0])  # reading a number waits for the device
    count, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < PROBE_S:
        _ = float((rows @ weight)[0, 0])
        count += 1
    return count * 2 * rows.numel() * SIZE / taken
