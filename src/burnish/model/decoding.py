"""Decoding many requests at once, each with an enhancement of its own, on one copy of the weights.

New requests are run through the model together (prefilled) between two steps and join the running batch; those that end leave
it. Padding is on the right in a prefill, where a causal model cannot see it, and on the left in the running batch, behind a
mask and explicit positions. Every row has its own edit (`row_edits`) and its own random numbers, so an answer does not depend
on who shares the batch, up to the rounding of matrix products whose shape changes with the number of rows.

A prefill beside running rows runs at most CPU_CHUNK or GPU_CHUNK tokens a step, about what four steps cost: a longer prompt is
run in pieces, so that it slows the others down and never stops them. Requests that wait are taken strictly in order. What the
template begins every chat with is run once for each edit (`prefix_cache`).

The library's own continuous batching (`transformers.generation.continuous_batching`) is not used: it packs the tokens of all
requests into one row, where an edit by row does not reach, and runs in a thread that the caller's steps cannot steer.
"""

import inspect
import itertools
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import transformers
from torch import Tensor

from burnish.errors import InputError, ModelError
from burnish.model.batch_cache import BatchCache, LoneCache
from burnish.model.capture import CPU_TOKENS, GPU_TOKENS, padded
from burnish.model.live import registered
from burnish.model.model import Model
from burnish.model.prefix_cache import PrefixCache
from burnish.model.row_edits import Candidate as Candidate
from burnish.model.row_edits import RowEdits, RowHooks, check_candidate
from burnish.model.sampling import Sampling as Sampling
from burnish.model.sampling import choose
from burnish.model.scoring import only_at
from burnish.model.shared_prefix import filled_cache
from burnish.model.skeleton import text_config

CPU_CHUNK, GPU_CHUNK = 64, 1024  # tokens of a prefill beside running rows; CPU_TOKENS, GPU_TOKENS while none runs
Finished = Literal["", "stop", "length", "failed"]


@dataclass(frozen=True)
class DecodeRequest:
    """A prompt to continue, as token ids, under one candidate edit."""

    prompt: list[int]
    candidate: Candidate
    tokens: int  # at most; the model's stop tokens end an answer earlier
    sampling: Sampling = field(default_factory=Sampling)
    log_probabilities: bool = False


@dataclass(frozen=True)
class DecodedToken:
    """One token of one request."""

    request: int
    token: int  # -1 where the request failed
    log_probability: float  # under the edited model at temperature 1, in nats; NaN where not asked for
    finished: Finished
    error: ModelError | None = None  # why it failed


@dataclass(eq=False)
class _Row:
    """A request on its way."""

    number: int
    request: DecodeRequest
    generator: torch.Generator
    made: int = 0  # tokens so far
    last: int = -1  # the newest token, which the next pass reads


class _Edits:
    """The edits of some rows. Rows of equal candidates share one copy of the factors."""

    def __init__(self, model: Model, rows: Sequence[_Row]) -> None:
        variants: dict[object, Candidate] = {}
        for row in rows:
            variants.setdefault(_kind(row.request.candidate), row.request.candidate)
        self._edits = RowEdits(model, list(variants.values()))
        self._variant_of_row = torch.tensor([list(variants).index(_kind(row.request.candidate)) for row in rows])
        self._hooks: dict[int, RowHooks] = {}  # by width: all steps of the running rows have the same

    def hooks(self, width: int) -> AbstractContextManager[None]:
        """Applied to a batch of these rows, `width` tokens each."""
        if width not in self._hooks:
            self._hooks[width] = self._edits.hooks(self._variant_of_row, width)
        return registered(self._hooks[width])


@dataclass
class _Prefill:
    """Prompts that are run through the model; more than one only where a single pass is enough for all."""

    rows: list[_Row]
    edits: "_Edits"
    cache: Any  # None where the model makes a cache of its own kind in the first pass
    done: int = 0  # columns already run


class Decoder:
    """Continuous batching: `submit` requests, then call `step` until `idle`.

    Models whose caches cannot be padded and joined (sliding windows, recurrent layers, rotary scales that depend on the longest
    row; see `batches_rows`) take one request at a time from the same queue. Hooks are on the network only inside `step`.
    `submit` and `cancel` may be called from other threads; `step` and `close` from one.
    """

    def __init__(self, model: Model, *, rows: int = 8) -> None:
        """rows: how many requests run at once. Raises InputError below 1."""
        if rows < 1:
            raise InputError(f"A decoder with {rows} rows cannot run a request. Pass at least 1.")
        self.model = model
        self.batched = batches_rows(model)
        self.rows = rows if self.batched else 1
        self._numbers = itertools.count()
        self._waiting: deque[_Row] = deque()
        self._cancelled: deque[int] = deque()
        self._prefilling: _Prefill | None = None
        self._running: list[_Row] = []  # in the order of the cache's rows
        self._cache = BatchCache() if self.batched else LoneCache()
        self._edits = _Edits(model, [])  # of the running rows
        self._prefix_cache = PrefixCache(model) if self.batched else None
        self._positions = "position_ids" in inspect.signature(model.network.forward).parameters
        self._on_cpu = model.device.type == "cpu"

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that hold a row, those being prefilled included."""
        return len(self._running) + (len(self._prefilling.rows) if self._prefilling else 0)

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    def submit(self, request: DecodeRequest) -> int:
        """The request's number. It waits its turn while all rows are taken.

        Raises InputError for an empty prompt, unknown token ids, fewer than one token to write, steering of another shape and
        when prompt and tokens exceed the model's context; WrongModelError and ModelError as `check_candidate`.
        """
        self._check(request)
        generator = torch.Generator().manual_seed(request.sampling.seed)
        row = _Row(next(self._numbers), request, generator)
        self._waiting.append(row)
        return row.number

    def cancel(self, number: int) -> None:
        """Ends a request at the next step, which frees its row and says nothing more of it. Unknown numbers, and those of
        requests that already ended, are ignored."""
        self._cancelled.append(number)

    def step(self) -> list[DecodedToken]:
        """The next token of every running request and the first token of those that joined; [] when idle.

        A request whose logits are no numbers, or whose adapter cannot be told apart by row, ends as "failed"; the others go on.
        After any other error (no memory, say) requests may be lost: close the decoder.
        """
        with torch.inference_mode():
            self._drop_cancelled()
            decoded = self._decode() if self._running else []
            return decoded + self._prefill()

    def close(self) -> None:
        """Drops all requests and what they hold."""
        self._waiting.clear()
        self._cancelled.clear()
        self._prefilling, self._running = None, []
        self._cache = BatchCache() if self.batched else LoneCache()
        self._edits = _Edits(self.model, [])

    def _check(self, request: DecodeRequest) -> None:
        check_candidate(self.model, request.candidate)
        anatomy = self.model.anatomy
        steering = request.candidate.steering
        if steering is not None and steering.shape != (anatomy.layers, anatomy.hidden_size):
            raise InputError(
                f"The steering of '{request.candidate.name}' is {tuple(steering.shape)}, where the model has "
                f"{anatomy.layers} layers of {anatomy.hidden_size}. Pass a tensor [layers, hidden]."
            )
        known = self.model.known_tokens
        if not request.prompt or not 0 <= min(request.prompt) <= max(request.prompt) < known:
            raise InputError(
                f"The prompt is empty or has token ids outside 0..{known - 1}, those that the model knows. Pass ids of its own tokenizer."
            )
        if request.tokens < 1:
            raise InputError(f"A request for {request.tokens} tokens writes nothing. Pass at least 1.")
        context = self.model.context
        if context is not None and len(request.prompt) + request.tokens > context:
            raise InputError(
                f"A prompt of {len(request.prompt)} tokens and an answer of up to {request.tokens} exceed the model's "
                f"context of {context} tokens. Shorten the prompt or ask for fewer tokens."
            )

    def _drop_cancelled(self) -> None:
        numbers: set[int] = set()
        while self._cancelled:
            numbers.add(self._cancelled.popleft())
        if not numbers:
            return
        for row in [row for row in list(self._waiting) if row.number in numbers]:
            self._waiting.remove(row)
        # A prefill that outlasts a step has one row.
        if self._prefilling and self._prefilling.rows[0].number in numbers:
            self._prefilling = None
        self._leave([row for row in self._running if row.number in numbers])

    def _decode(self) -> list[DecodedToken]:
        rows = list(self._running)
        arguments = self._cache.arguments()
        try:
            output = self._run(self._edits, torch.tensor([[row.last] for row in rows]), arguments)
        except ModelError as error:
            failed = _with_adapter(rows, error)
            self._leave(failed)
            return [_failed(row, error) for row in failed]
        self._cache.advance()
        chosen = self._chosen(rows, output.logits[:, -1])
        self._leave([row for row, token in zip(rows, chosen, strict=True) if token.finished])
        return chosen

    def _prefill(self) -> list[DecodedToken]:
        """The next piece of the prompts that join; their first tokens after the last piece."""
        small, large = (CPU_CHUNK, CPU_TOKENS) if self._on_cpu else (GPU_CHUNK, GPU_TOKENS)
        tokens = small if self._running else large
        self._prefilling = group = self._prefilling or self._next(tokens)
        if group is None:
            return []
        prompts = [row.request.prompt for row in group.rows]
        width = max(map(len, prompts))
        stop = min(width, group.done + max(1, tokens // len(prompts))) if self.batched else width
        ids = padded([prompt[group.done : stop] for prompt in prompts])
        arguments = {
            "past_key_values": group.cache,
            "position_ids": torch.arange(group.done, stop).expand(len(prompts), -1),
        }
        last = torch.tensor([min(len(prompt), stop) for prompt in prompts]) - group.done - 1
        try:
            with only_at(self.model, torch.arange(len(prompts)), last):
                output = self._run(group.edits, ids, arguments)
        except ModelError as error:
            self._prefilling = None
            return [_failed(row, error) for row in _with_adapter(group.rows, error)]
        group.done = stop
        if group.cache is None:
            group.cache = output.past_key_values
        if stop < width:
            return []
        self._prefilling = None
        if self._prefix_cache is not None:
            for row, prompt in enumerate(prompts):
                self._prefix_cache.keep(group.cache, row, prompt, group.rows[row].request.candidate)
        chosen = self._chosen(group.rows, output.logits[0])
        joining = {row: len(prompts[row]) for row, token in enumerate(chosen) if not token.finished}
        if joining:
            self._cache.join(group.cache, joining)
            self._running += [group.rows[row] for row in joining]
            self._edits = _Edits(self.model, self._running)
        return chosen

    def _next(self, tokens: int) -> _Prefill | None:
        """The requests at the head of the queue that fit into the free rows and, padded, into one pass of `tokens`.

        They share their adapter or have none, so that an adapter that fails takes no others with it.
        """
        rows: list[_Row] = []
        longest = 0
        while self._waiting and len(self._running) + len(rows) < self.rows:
            request = self._waiting[0].request
            longest = max(longest, len(request.prompt))
            other = rows and request.candidate.adapter is not rows[0].request.candidate.adapter
            if rows and (other or (len(rows) + 1) * longest > tokens):
                break
            rows.append(self._waiting.popleft())
        if not rows:
            return None
        cache = transformers.DynamicCache(config=text_config(self.model.network.config))
        cache = cache if self.model.network._supports_default_dynamic_cache() else None
        done = 0
        if cache is not None and self._prefix_cache is not None:
            requests = [row.request for row in rows]
            done = self._prefix_cache.begin(cache, [r.prompt for r in requests], [r.candidate for r in requests])
        return _Prefill(rows, _Edits(self.model, rows), cache, done)

    def _run(self, edits: _Edits, ids: Tensor, arguments: dict[str, Any]) -> Any:
        """One pass over ids [rows, tokens], each row under its own edit."""
        device = self.model.device
        placed = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in arguments.items()}
        if not self._positions:
            del placed["position_ids"]
        with edits.hooks(ids.shape[1]):
            return self.model.network(input_ids=ids.to(device), use_cache=True, **placed)

    def _chosen(self, rows: list[_Row], logits: Tensor) -> list[DecodedToken]:
        asked = any(row.request.log_probabilities for row in rows)
        choice = choose(logits, [(r.request.sampling, r.generator) for r in rows], log_probabilities=asked)
        chosen = []
        for index, row in enumerate(rows):
            if not choice.finite[index]:
                chosen.append(_failed(row, _not_finite(row.request.candidate)))
                continue
            row.last, row.made = choice.tokens[index], row.made + 1
            finished: Finished = "length" if row.made == row.request.tokens else ""
            finished = "stop" if row.last in self.model.stop_tokens else finished
            score = choice.log_probabilities[index] if row.request.log_probabilities else float("nan")
            chosen.append(DecodedToken(row.number, row.last, score, finished))
        return chosen

    def _leave(self, rows: list[_Row]) -> None:
        for row in rows:
            index = self._running.index(row)
            self._cache.leave(index)
            self._running[index] = self._running[-1]
            self._running.pop()
        if rows:
            self._edits = _Edits(self.model, self._running)


def batches_rows(model: Model) -> bool:
    """Whether rows of different lengths can share a cache and leave each other alone.

    `filled_cache` knows whether all layers keep plain keys and values. Rotary scales that change with the longest row of a batch
    (dynamic NTK, LongRoPE) would let one row change the others.
    """
    scales = {str(getattr(module, "rope_type", "")) for module in model.network.modules()}
    if any("dynamic" in scale or "longrope" in scale for scale in scales):
        return False
    return filled_cache(model, [0]) is not None


def decode(model: Model, requests: Sequence[DecodeRequest], *, rows: int = 8) -> list[list[int]]:
    """The answers of all requests in order; each ends before its stop token. Raises what `Decoder.submit` raises, and
    ModelError for a request that fails."""
    answers: dict[int, list[int]] = {}
    with Decoder(model, rows=rows) as decoder:
        numbers = [decoder.submit(request) for request in requests]
        while not decoder.idle:
            for token in decoder.step():
                if token.error is not None:
                    raise token.error
                if token.finished != "stop":
                    answers.setdefault(token.request, []).append(token.token)
    return [answers.get(number, []) for number in numbers]


def _kind(candidate: Candidate) -> object:
    """Equal for candidates that can share one copy of an edit's factors, while they are alive."""
    return id(candidate.enhancement), id(candidate.steering), id(candidate.adapter), candidate.adapter_scale


def _with_adapter(rows: list[_Row], error: ModelError) -> list[_Row]:
    """The rows whose edit can fail inside a pass; raises the error again where there is none."""
    adapted = [row for row in rows if row.request.candidate.adapter is not None]
    if not adapted:
        raise error
    return adapted


def _failed(row: _Row, error: ModelError) -> DecodedToken:
    return DecodedToken(row.number, -1, float("nan"), "failed", error)


def _not_finite(candidate: Candidate) -> ModelError:
    return ModelError(
        f"The model's logits are not finite under '{candidate.name}': its number type overflows or the edit is too strong. "
        "Load it with --dtype float32, or lower the factor."
    )
