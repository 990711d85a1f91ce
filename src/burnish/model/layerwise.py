"""Hidden states of a model larger than memory: all prompts go through one block, then through the next.

Two blocks are in memory at a time, the one that runs and the one that is read; what every prompt's states need is the
width of the model. The result is that of `capture`, to rounding.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from burnish.artifacts.checkpoint import Checkpoint
from burnish.errors import ModelError, QuantisedModelError
from burnish.model.block_inputs import Call, Recording, answer_length, record
from burnish.model.block_weights import DiskWeights
from burnish.model.capture import (
    CPU_TOKENS,
    GPU_TOKENS,
    Tokens,
    attention_writes,
    batches,
    keeping,
    rows_of,
    stream_of,
)
from burnish.model.device import SPREAD, choose
from burnish.model.live import registered
from burnish.model.loading import load_tokenizer, quiet
from burnish.model.model import Model
from burnish.model.shared_prefix import SHORTEST_PREFIX, decoder_of, shareable_cache, shared_prefix
from burnish.model.skeleton import anatomy_of, load_config, require_once, skeleton
from burnish.model.source import resolve
from burnish.options import ModelOptions, Site
from burnish.steps import Advance

STATES_BYTES = 1 << 30  # states kept in memory; more go to a file
HANDED_ROWS = 64  # sequences handed over at once


@dataclass
class LayeredModel(Model):
    """A model whose weights stay on disk. It reads prompts' states and does nothing that needs all blocks at once."""

    weights: DiskWeights
    states_bytes: int = STATES_BYTES

    @property
    def device(self) -> torch.device:
        return self.weights.device

    def _generated(self, prompts: Sequence[list[int]], tokens: int, **sampling: Any) -> list[list[int]]:
        raise ModelError(
            "A model that is run layer by layer cannot write answers: each token would read all weights again. "
            "Pass prompts with answers on both sides, or --position prompt."
        )


@dataclass(frozen=True)
class Wanted:
    """States that will be asked for."""

    sequences: Sequence[Tokens]
    site: Site


def load_layered(
    model: str | Path,
    options: ModelOptions | None = None,
    *,
    states_bytes: int = STATES_BYTES,
    tell: Callable[[str], object] | None = None,
) -> LayeredModel:
    """Opens a model without its weights, to be run layer by layer.

    Args:
        model: a hub id, a local folder, a `.gguf` file or a packaged name.
        options: number type, device, revision.
        states_bytes: of hidden states in memory; more go to a file in the temporary folder.
        tell: called with a line on the device and the number type that were chosen, before any weight is read.

    Returns:
        What `find_direction` takes in the place of a model.

    Raises:
        ModelNotFoundError: there is no such model.
        ModelError: it cannot be run layer by layer.
        QuantisedModelError: its weights are quantised.
        NoProjectionError: no attention output projection was found in it.
    """
    options = options or ModelOptions()
    folder = resolve(model, revision=options.revision)
    config = load_config(folder, options)
    if getattr(config, "quantization_config", None) is not None:
        raise QuantisedModelError(
            f"{folder} holds quantised weights, which cannot be run layer by layer: their modules are made by the quantisation's own "
            "loader. Pass the original (unquantised) weights, or load the model as a whole."
        )
    choice = choose(folder, options, in_blocks=True)
    options = choice.options
    if options.device == SPREAD:
        raise ModelError("Layer by layer runs on one device. Pass --device cpu, or for example cuda:0.")
    if options.tensor_parallel:
        raise ModelError(
            "Layer by layer no process holds the model, so there is nothing to split. Leave out --tensor-parallel; several "
            "processes share the prompts."
        )
    checkpoint = Checkpoint(folder)
    how: dict[str, Any] = {"dtype": getattr(torch, choice.dtype)}
    if options.attn_implementation:
        how["attn_implementation"] = options.attn_implementation
    if tell is not None:
        tell(str(choice))
    with quiet():
        network, _ = skeleton(folder, options, **how)
    tokenizer = load_tokenizer(folder, options)
    network.requires_grad_(False).eval()
    require_once(folder, network, checkpoint.tensors)
    anatomy = anatomy_of(network, network.config)
    weights = DiskWeights(network, checkpoint, anatomy.stack, torch.device(options.device))
    weights.require_tables()
    return LayeredModel(str(model), folder, network, tokenizer, anatomy, weights, states_bytes)


def layered_capture(
    model: LayeredModel, wanted: Sequence[Wanted], *, progress: Advance | None = None
) -> Callable[..., None]:
    """Runs all wanted sequences through the model once, and returns what `capture` would be for them.

    The result is called with (sequences, consume, site=, progress=) and hands over the states that were kept. progress is told of
    each block that is done.
    """
    planned = plan_pass(model, wanted)
    rows = {_key(s): row for row, s in enumerate(planned.sequences)}
    states = _run(model, planned, progress) if planned.sequences else {}

    def hand_over(
        sequences: Sequence[Tokens],
        consume: Callable[[list[int], Tensor], None],
        *,
        site: Site = "residual",
        progress: Advance | None = None,
    ) -> None:
        for start in range(0, len(sequences), HANDED_ROWS):
            indices = list(range(start, min(start + HANDED_ROWS, len(sequences))))
            consume(indices, states[site][[rows[_key(sequences[i])] for i in indices]])
            if progress is not None:
                progress(len(indices))

    return hand_over


@dataclass(frozen=True)
class Pass:
    """One pass through all blocks. sequences: each once, shortest first; sizes: of the batches; prefix: tokens that all share and that
    are run once; cache: that holds them."""

    sequences: list[Tokens]
    sites: list[Site]
    sizes: list[int]
    prefix: int
    cache: Any

    @property
    def tokens(self) -> int:
        """Positions that are run, padding included."""
        total, end = self.prefix, 0
        for size in self.sizes:
            end += size
            total += size * (len(self.sequences[end - 1].tokens) - self.prefix)
        return total


def plan_pass(model: LayeredModel, wanted: Sequence[Wanted]) -> Pass:
    """How the wanted sequences go through the model."""
    sites = sorted({w.site for w in wanted if w.sequences})
    unique = {_key(s): s for w in wanted for s in w.sequences}.values()
    sequences = sorted(unique, key=lambda s: (len(s.tokens), s.tokens, s.first))
    prefix = min([shared_prefix([s.tokens for s in sequences]), *(s.first for s in sequences)]) if sequences else 0
    cache = shareable_cache(model) if prefix >= SHORTEST_PREFIX else None
    prefix = prefix if cache is not None else 0
    sizes = batches([len(s.tokens) - prefix for s in sequences], batch_tokens(model.device))
    return Pass(sequences, sites, sizes, prefix, cache)


def _key(sequence: Tokens) -> tuple[tuple[int, ...], int, int]:
    return tuple(sequence.tokens), sequence.first, sequence.last


@dataclass(frozen=True)
class _Batch:
    """Some sequences between two blocks. states: views of what is kept of them, [rows, layers, hidden] by site."""

    hidden: Tensor  # on the CPU or in a file
    calls: tuple[Call, ...]
    first: Tensor
    last: Tensor
    states: dict[Site, Tensor]


@torch.inference_mode()
def _run(model: LayeredModel, planned: Pass, progress: Advance | None) -> dict[Site, Tensor]:
    """States [sequences, layers, hidden] by site."""
    weights, anatomy, cache = model.weights, model.anatomy, planned.cache
    blocks = list(model.network.get_submodule(anatomy.stack))
    shape = (len(planned.sequences), anatomy.layers, anatomy.hidden_size)
    with _space(model.states_bytes) as space, ThreadPoolExecutor(1) as reader:
        states = {site: space(shape, torch.float32) for site in planned.sites}
        paths = [f"{anatomy.stack}.{index}" for index in range(anatomy.layers)]
        weights.fill(paths[0], weights.read(paths[0]))
        with weights.around_the_blocks():
            around = _around(model, blocks, planned.sequences[0])
            shared = _prefix_recording(around, planned, model.device)
            work = list(_recorded(model, around, planned, states, space))
        for index, path in enumerate(paths):
            ahead = reader.submit(weights.read, paths[index + 1]) if index + 1 < len(paths) else None
            if shared is not None:
                shared = _run_prefix(blocks[index], index, shared, cache.layers[index])
            for batch in work:
                _run_block(model, blocks[index], index, batch)
            if cache is not None:
                cache.layers[index].keys = cache.layers[index].values = None
            weights.free(path)
            if ahead is not None:
                weights.fill(paths[index + 1], ahead.result())
            if progress is not None:
                progress(1)
        return states


def _around(model: LayeredModel, blocks: Sequence[torch.nn.Module], example: Tokens) -> Callable[..., Recording]:
    """Records what the model's own forward gives to its blocks."""
    decoder = decoder_of(model)
    ids = torch.tensor([example.tokens], device=model.device)
    length = answer_length(decoder, blocks[0], {"input_ids": ids, "use_cache": False})
    return lambda **arguments: record(decoder, blocks, arguments, length)


def _recorded(
    model: LayeredModel,
    around: Callable[..., Recording],
    planned: Pass,
    states: dict[Site, Tensor],
    space: Callable[..., Tensor],
) -> Iterator[_Batch]:
    """The batches in front of the first block."""
    start, cache = 0, planned.cache
    for size in planned.sizes:
        rows = slice(start, start + size)
        ids, first, last = rows_of(planned.sequences[rows], planned.prefix)
        arguments: dict[str, Any] = {"input_ids": ids.to(model.device), "use_cache": cache is not None}
        if cache is not None:
            arguments["past_key_values"] = cache
        recording = around(**arguments)
        hidden = space(recording.hidden.shape, recording.hidden.dtype).copy_(recording.hidden)
        states_of_rows = {site: values[rows] for site, values in states.items()}
        yield _Batch(hidden, recording.calls, first, last, states_of_rows)
        start += size


def batch_tokens(device: torch.device) -> int:
    """Tokens a batch holds, padding included."""
    return CPU_TOKENS if device.type == "cpu" else GPU_TOKENS


def _run_block(model: LayeredModel, block: torch.nn.Module, index: int, batch: _Batch) -> None:
    writes = attention_writes(model, index) if "attention" in batch.states else []
    with registered(
        (module, keeping(batch.states["attention"], index, batch.first, batch.last, stop=False)) for module in writes
    ):
        output = batch.calls[index](block, batch.hidden.to(model.device))
    if "residual" in batch.states:
        stream = stream_of(model)
        keeping(batch.states["residual"], index, batch.first, batch.last, stop=False, stream=stream)(block, (), output)
    batch.hidden.copy_(output)


def _prefix_recording(around: Callable[..., Recording], planned: Pass, device: torch.device) -> Recording | None:
    """The shared prefix in front of the first block; from then on the cache counts it as there."""
    if planned.cache is None:
        return None
    ids = torch.tensor([planned.sequences[0].tokens[: planned.prefix]], device=device)
    recording = around(input_ids=ids, past_key_values=planned.cache, use_cache=True)
    planned.cache.share(planned.prefix)
    return recording


def _run_prefix(block: torch.nn.Module, index: int, shared: Recording, layer: Any) -> Recording:
    """Runs the prefix through a block, whose layer of the cache then holds it."""
    tokens, layer.tokens = layer.tokens, 0
    hidden = shared.calls[index](block, shared.hidden)
    layer.tokens = tokens
    return Recording(hidden, shared.calls)


@contextmanager
def _space(limit: int) -> Iterator[Callable[..., Tensor]]:
    """Hands out zeroed tensors: in memory up to `limit` bytes together, then memory-mapped files that end with the block."""
    used = 0
    with tempfile.TemporaryDirectory(prefix="burnish-states-", ignore_cleanup_errors=True) as folder:

        def space(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
            nonlocal used
            size = int(torch.Size(shape).numel())
            used += size * dtype.itemsize
            if used <= limit or not size:
                return torch.zeros(shape, dtype=dtype)
            file = Path(folder) / str(used)
            return torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(shape)

        yield space
