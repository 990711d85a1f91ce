"""One pass over prompts, keeping only running sums of the hidden states at one position.

What makes it fast: the tokens that every prompt shares at the start (the template's system turn) are computed once and
their cache reused; prompts are sorted by length, so that padding is small; padding is on the right, where a causal model
cannot see it; the language-model head is never run; and the pass stops after the last layer asked for.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from burnish.errors import ModelError
from burnish.model.model import Model
from burnish.options import DEFAULT_BATCH, Site

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Tokens:
    """Tokens to run and the positions whose mean is kept: [first, last] inclusive."""

    tokens: list[int]
    first: int
    last: int


class _StopError(Exception):
    """Raised inside a forward pass when nothing further is needed."""


def prompt_sequences(model: Model, prompts: Sequence[Any]) -> list[Tokens]:
    """The last token of each rendered prompt."""
    found = []
    for prompt in prompts:
        tokens = model.tokens(prompt)
        found.append(Tokens(tokens, len(tokens) - 1, len(tokens) - 1))
    return found


def answer_sequences(model: Model, prompts: Sequence[Any], answers: Sequence[list[int]]) -> list[Tokens]:
    """All tokens of each answer, which follow the prompt and so never include the first token or the template's prefix."""
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens = model.tokens(prompt)
        if not answer:
            raise ModelError(f"The answer to '{prompt.text[:60]}' is empty. Remove the row or write an answer.")
        found.append(Tokens(tokens + answer, len(tokens), len(tokens) + len(answer) - 1))
    return found


def capture(
    model: Model,
    sequences: Sequence[Tokens],
    consume: Callable[[list[int], Tensor], None],
    *,
    site: Site = "residual",
    last_layer: int | None = None,
    batch: int = DEFAULT_BATCH,
    progress: Progress | None = None,
) -> None:
    """Runs every sequence once and hands over its states in batches.

    consume(rows, states): indices into `sequences`, and float32 states [rows, layers, hidden] (the mean over the kept
    positions). last_layer: the pass stops after it. The batch halves on out-of-memory and the batch is run again.
    """
    layers = model.anatomy.layers if last_layer is None else last_layer + 1
    prefix = _shared_prefix(sequences)
    cache = _prefix_cache(model, sequences[0].tokens[:prefix]) if prefix >= 4 else None
    prefix = prefix if cache is not None else 0
    order = sorted(range(len(sequences)), key=lambda i: (len(sequences[i].tokens), i))
    start = 0
    while start < len(order):
        rows = order[start : start + batch]
        try:
            states = _run(model, [sequences[i] for i in rows], prefix, cache, site, layers)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2
            continue
        consume(rows, states)
        start += len(rows)
        if progress is not None:
            progress(len(rows))


def _shared_prefix(sequences: Sequence[Tokens]) -> int:
    """How many leading tokens all sequences share, none of them a kept position."""
    if len(sequences) < 2:
        return 0
    limit = min(min(s.first for s in sequences), min(len(s.tokens) for s in sequences) - 1)
    first = sequences[0].tokens
    for index in range(limit):
        if any(s.tokens[index] != first[index] for s in sequences):
            return index
    return limit


@torch.inference_mode()
def _prefix_cache(model: Model, tokens: list[int]) -> Any | None:
    """The key-value cache of the shared prefix, or None where the model's cache cannot be repeated over a batch."""
    import transformers

    ids = torch.tensor([tokens], device=model.device)
    cache = transformers.DynamicCache(config=model.network.config)
    plain = all(type(layer) is transformers.cache_utils.DynamicLayer for layer in cache.layers)
    mixers = {projection.kind for projection in model.anatomy.projections}
    if not plain or mixers != {"attention"} or model.anatomy.skipped:
        return None
    out = _decoder(model)(input_ids=ids, past_key_values=cache, use_cache=True)
    return out.past_key_values


def _decoder(model: Model) -> nn.Module:
    """The model without its language-model head."""
    base = getattr(model.network, "base_model", model.network)
    return base if isinstance(base, nn.Module) else model.network


@torch.inference_mode()
def _run(model: Model, batch: list[Tokens], prefix: int, cache: Any | None, site: Site, layers: int) -> Tensor:
    width = max(len(s.tokens) for s in batch) - prefix
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    for row, sequence in enumerate(batch):
        tail = sequence.tokens[prefix:]
        ids[row, : len(tail)] = torch.tensor(tail)
    first = torch.tensor([s.first - prefix for s in batch])
    last = torch.tensor([s.last - prefix for s in batch])
    arguments: dict[str, Any] = {"input_ids": ids.to(model.device), "use_cache": cache is not None}
    if cache is not None:
        repeated = copy.deepcopy(cache)
        repeated.batch_repeat_interleave(len(batch))
        arguments["past_key_values"] = repeated
    states = torch.zeros(len(batch), layers, model.anatomy.hidden_size)
    with _hooks(model, states, first, last, site, layers), suppress(_StopError):
        _decoder(model)(**arguments)
    return states


@contextmanager
def _hooks(model: Model, states: Tensor, first: Tensor, last: Tensor, site: Site, layers: int) -> Iterator[None]:
    stack = model.network.get_submodule(model.anatomy.stack)
    handles = []
    try:
        for index in range(layers):
            block = stack[index]
            stop = index == layers - 1 and layers < model.anatomy.layers
            if site == "residual":
                handles.append(block.register_forward_hook(_keep(states, index, first, last, stop=stop)))
                continue
            if stop:
                handles.append(block.register_forward_hook(_stop))
            for projection in model.anatomy.attention():
                if projection.layer == index:
                    module = model.network.get_submodule(projection.post_norm or projection.path)
                    handles.append(module.register_forward_hook(_keep(states, index, first, last, stop=False)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _stop(module: nn.Module, arguments: Any, output: Any) -> None:
    raise _StopError


def _keep(states: Tensor, layer: int, first: Tensor, last: Tensor, *, stop: bool) -> Any:
    single = bool((first == last).all())
    rows = torch.arange(len(first))

    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        hidden = hidden.view(len(first), -1, hidden.shape[-1])
        if single:
            kept = hidden[rows, last]
        else:
            positions = torch.arange(hidden.shape[1])
            mask = (positions >= first[:, None]) & (positions <= last[:, None])
            weights = (mask / mask.sum(1, keepdim=True)).to(hidden.device, torch.float32)
            kept = torch.einsum("bs,bsh->bh", weights, hidden.float())
        states[:, layer] += kept.float().cpu()
        if stop:
            raise _StopError

    return hook
