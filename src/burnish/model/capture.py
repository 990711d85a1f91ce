"""One pass over prompts, keeping only running sums of the hidden states at one position.

What makes it fast: the tokens that every prompt shares at the start (the template's system turn) are computed once and
every batch attends to that one copy; prompts are sorted by length and batched by tokens, so that padding is small; padding
is on the right, where a causal model cannot see it; the language-model head is never run; and the pass stops after the last
layer asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.hooks import RemovableHandle

from burnish.errors import ModelError
from burnish.model.live import hooked
from burnish.model.model import Model
from burnish.model.shared_prefix import SHORTEST_PREFIX, decoder_of, filled_cache, shared_prefix
from burnish.model.skeleton import text_config
from burnish.options import Site
from burnish.steps import Advance

Read = Site | Literal["embedding"]
# Tokens a batch: enough for matrix products at full speed, few enough for a small footprint. Halved on out-of-memory.
CPU_TOKENS, GPU_TOKENS = 512, 8192
BATCH_OVERHEAD = 20  # tokens that could be run in the time a further batch costs


@dataclass(frozen=True)
class Tokens:
    """Tokens to run and the positions whose mean is read: [first, last] inclusive."""

    tokens: list[int]
    first: int
    last: int


class ReachedError(Exception):
    """Raised inside a forward pass when nothing further is needed."""


def prompt_sequences(model: Model, prompts: Sequence[Any]) -> list[Tokens]:
    """The last token of each rendered prompt."""
    sequences = []
    for prompt in prompts:
        tokens = model.tokens(prompt)
        sequences.append(Tokens(tokens, len(tokens) - 1, len(tokens) - 1))
    return sequences


def answer_sequences(model: Model, prompts: Sequence[Any], answers: Sequence[list[int]]) -> list[Tokens]:
    """All tokens of each answer, which follow the prompt and so never include the first token or the template's prefix."""
    sequences = []
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens = model.tokens(prompt)
        if not answer:
            raise ModelError(f"The answer to '{prompt.text[:60]}' is empty. Remove the row or write an answer.")
        sequences.append(Tokens(tokens + answer, len(tokens), len(tokens) + len(answer) - 1))
    return sequences


def capture(
    model: Model,
    sequences: Sequence[Tokens],
    consume: Callable[[list[int], Tensor], None],
    *,
    site: Read = "residual",
    last_layer: int | None = None,
    tokens: int | None = None,
    progress: Advance | None = None,
) -> None:
    """Runs every sequence once and hands over its states in batches.

    consume(rows, states): indices into `sequences`, and float32 states [rows, layers, hidden] (the mean over the kept
    positions). site: "embedding" is what enters the first block and has one layer. last_layer: the pass stops after it.
    tokens: how many a batch holds, padding included; halved on out-of-memory, and the batch is run again.
    """
    if not sequences:
        return
    model.require_all_fit(sequence.tokens for sequence in sequences)
    if site == "embedding":
        last_layer = 0
    layers = model.anatomy.layers if last_layer is None else last_layer + 1
    tokens = tokens or (CPU_TOKENS if model.device.type == "cpu" else GPU_TOKENS)
    prefix = min(shared_prefix([s.tokens for s in sequences]), min(s.first for s in sequences))
    cache = filled_cache(model, sequences[0].tokens[:prefix]) if prefix >= SHORTEST_PREFIX else None
    prefix = prefix if cache is not None else 0
    lengths = [len(s.tokens) - prefix for s in sequences]
    order = sorted(range(len(sequences)), key=lambda i: (lengths[i], i))
    sizes = batches([lengths[i] for i in order], tokens)
    while order:
        rows = order[: sizes[0]]
        try:
            states = _run(model, [sequences[i] for i in rows], prefix, cache, site, layers)
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
            sizes = batches([lengths[i] for i in order], len(rows) // 2 * lengths[rows[-1]])
            continue
        consume(rows, states)
        order, sizes = order[len(rows) :], sizes[1:]
        if progress is not None:
            progress(len(rows))


def captured(
    model: Model,
    sequences: Sequence[Tokens],
    each: Callable[[Tensor], Tensor] = Tensor.double,
    *,
    site: Read = "residual",
    last_layer: int | None = None,
    progress: Advance | None = None,
) -> Tensor:
    """What `each` makes of the states of `capture` (by default themselves, in float64), a row a sequence, in their order."""
    parts: dict[int, Tensor] = {}

    def keep(rows: list[int], states: Tensor) -> None:
        parts.update(zip(rows, each(states), strict=True))

    capture(model, sequences, keep, site=site, last_layer=last_layer, progress=progress)
    return torch.stack([parts[row] for row in range(len(sequences))])


def batches(lengths: Sequence[int], tokens: int) -> list[int]:
    """Cuts sequences (shortest first) into batches of at most `tokens`, padding included, so that the padding and an overhead
    a batch cost least; returns the batches' sizes. A sequence longer than `tokens` stands alone."""
    cost = [0.0] + [float("inf")] * len(lengths)
    start = [0] * (len(lengths) + 1)
    for end in range(1, len(lengths) + 1):
        longest = lengths[end - 1]
        for first in range(end - 1, max(-1, end - 1 - max(1, tokens // longest)), -1):
            total = cost[first] + (end - first) * longest + BATCH_OVERHEAD
            if total < cost[end]:
                cost[end], start[end] = total, first
    sizes: list[int] = []
    end = len(lengths)
    while end:
        sizes.append(end - start[end])
        end = start[end]
    return sizes[::-1]


def in_batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """The indices of sequences, shortest first, in batches of at most `tokens` (see `batches`)."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    start = 0
    for size in batches([lengths[i] for i in order], tokens):
        yield order[start : start + size]
        start += size


def padded(sequences: Sequence[Sequence[int]]) -> Tensor:
    """Token ids [rows, tokens]. Padding is on the right, where nothing that counts can see it."""
    return pad_sequence([torch.tensor(tokens, dtype=torch.long) for tokens in sequences], batch_first=True)


def rows_of(batch: Sequence[Tokens], prefix: int) -> tuple[Tensor, Tensor, Tensor]:
    """(token ids behind the prefix [rows, width]; first and last kept position of each row [rows])."""
    positions = torch.tensor([(s.first - prefix, s.last - prefix) for s in batch])
    return padded([s.tokens[prefix:] for s in batch]), positions[:, 0], positions[:, 1]


@torch.inference_mode()
def _run(model: Model, batch: list[Tokens], prefix: int, cache: Any | None, site: Read, layers: int) -> Tensor:
    ids, first, last = rows_of(batch, prefix)
    arguments: dict[str, Any] = {"input_ids": ids.to(model.device), "use_cache": cache is not None}
    if cache is not None:
        arguments["past_key_values"] = cache
    states = torch.zeros(len(batch), layers, model.anatomy.hidden_size)
    with hooked(_reading(model, states, first, last, site, layers)), suppress(ReachedError):
        decoder_of(model)(**arguments)
    return states


def _reading(
    model: Model, states: Tensor, first: Tensor, last: Tensor, site: Read, layers: int
) -> Iterator[RemovableHandle]:
    """Hooks that fill `states`, and stop the pass behind the last layer asked for."""
    stack = model.network.get_submodule(model.anatomy.stack)
    stream = stream_of(model)
    if site == "embedding":
        keep = keeping(states, 0, first, last, stop=True, stream=stream)

        def enter(module: nn.Module, arguments: Any, keywords: Any) -> None:
            keep(module, arguments, arguments[0] if arguments else keywords["hidden_states"])

        yield stack[0].register_forward_pre_hook(enter, with_kwargs=True)
        return
    for index in range(layers):
        stop = index == layers - 1 and layers < model.anatomy.layers
        if site == "residual":
            yield stack[index].register_forward_hook(keeping(states, index, first, last, stop=stop, stream=stream))
            continue
        if stop:
            yield stack[index].register_forward_hook(_stop)
        for module in attention_writes(model, index):
            yield module.register_forward_hook(keeping(states, index, first, last, stop=False))


def attention_writes(model: Model, layer: int) -> list[nn.Module]:
    """The modules whose outputs are what the attention of a layer adds to the residual stream."""
    projections = [p for p in model.anatomy.attention() if p.layer == layer]
    return [model.network.get_submodule(p.post_norm or p.path) for p in projections]


def stream_of(model: Model) -> int | None:
    """The parallel residual stream that attention writes to, in the architectures that number theirs (see `one_stream`)."""
    index: int | None = getattr(text_config(model.network.config), "altup_active_idx", None)
    return index


def _stop(module: nn.Module, arguments: Any, output: Any) -> None:
    raise ReachedError


def keeping(states: Tensor, layer: int, first: Tensor, last: Tensor, *, stop: bool, stream: int | None = None) -> Any:
    """A forward hook that adds the mean of a module's output over chosen positions to `states` [rows, layers, hidden]."""
    single = bool((first == last).all())
    rows = torch.arange(len(first))

    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        hidden = one_stream(hidden, stream).view(len(first), -1, hidden.shape[-1])
        if single:
            means = hidden[rows, last]
        else:
            positions = torch.arange(hidden.shape[1])
            mask = (positions >= first[:, None]) & (positions <= last[:, None])
            weights = (mask / mask.sum(1, keepdim=True)).to(hidden.device, torch.float32)
            means = torch.einsum("bs,bsh->bh", weights, hidden.float())
        states[:, layer] += means.float().cpu()
        if stop:
            raise ReachedError

    return hook


def one_stream(hidden: Tensor, stream: int | None) -> Tensor:
    """A block's output without the parallel residual streams that some architectures carry.

    stream: the one that attention writes to, of [streams, rows, tokens, hidden] (Gemma 3n); without it several streams
    [rows, tokens, streams, hidden] are averaged (DeepSeek V4), and three dimensions are left as they are.
    """
    if hidden.ndim < 4:
        return hidden
    return hidden.mean(2) if stream is None else hidden[stream]
