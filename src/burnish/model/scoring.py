"""Log probabilities of given answers under the base model and many candidate edits, in one pass for all.

What makes it fast: a batch row has a candidate of its own (the edit's factors are picked by row), the base model is one of the
rows, everything below the first edited layer is run once for all candidates, the prefix that all prompts share is run once
a candidate, and logits are computed only where an answer's token is predicted.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from burnish.errors import ModelError
from burnish.model.capture import ReachedError, in_batches, padded
from burnish.model.device import widest
from burnish.model.live import hooked, registered
from burnish.model.model import Model
from burnish.model.row_edits import Candidate as Candidate
from burnish.model.row_edits import RowEdits, check_candidate
from burnish.model.shared_prefix import SHORTEST_PREFIX, decoder_of, filled_cache, shared_prefix
from burnish.steps import Progress, advancing

CPU_TOKENS, GPU_TOKENS = 1024, 16384  # a batch, padding and candidates included


@dataclass(frozen=True)
class Item:
    """Tokens of a rendered prompt and of an answer to score."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class TokenScores:
    """One answer under one candidate, a number a token."""

    log_probability: Tensor  # [tokens], float64
    kl: Tensor  # [tokens], KL(base || candidate) in nats, float64
    flipped: Tensor  # [tokens], whether the most likely token changed


@dataclass(frozen=True)
class Scores:
    base: tuple[TokenScores, ...]  # one an item
    candidates: tuple[tuple[TokenScores, ...], ...]  # [candidate][item]


def score(
    model: Model,
    items: Sequence[Item],
    candidates: Sequence[Candidate],
    *,
    tokens: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Scores every item under the base model and every candidate. tokens: how many a batch holds.

    Raises ValueError for an item without prompt or answer, InputError for one beyond the context, WrongModelError for an enhancement or adapter of another model,
    ModelError for an adapter that changes more than the blocks and when the model computes no numbers.
    """
    if any(not item.prompt or not item.answer for item in items):
        raise ValueError("every item needs a prompt and an answer of at least one token")
    for candidate in candidates:
        check_candidate(model, candidate)
    if not items:
        return Scores((), tuple(() for _ in candidates))
    model.require_all_fit(item.prompt + item.answer for item in items)
    tokens = tokens or (CPU_TOKENS if model.device.type == "cpu" else GPU_TOKENS)
    longest = max(len(i.prompt) + len(i.answer) for i in items)
    group = max(1, min(len(candidates), tokens // longest - 1))
    base: list[TokenScores] = []
    scored: list[tuple[TokenScores, ...]] = []
    for start in range(0, max(1, len(candidates)), group):
        part = list(candidates[start : start + group])
        rows = _score_group(model, items, part, tokens, progress)
        if not all(bool(torch.isfinite(s.log_probability).all()) for row in rows for s in row):
            raise ModelError(
                "The model's log probabilities are not finite: its number type overflows or its weights are damaged. "
                "Load it with --dtype float32, or lower the factor."
            )
        base = base or rows[0]
        scored += [tuple(row) for row in rows[1:]]
    return Scores(tuple(base), tuple(scored))


def likelihood_changes(base: Sequence[TokenScores], scores: Sequence[TokenScores]) -> Tensor:
    """Change of each answer's log probability per token, in nats, [answers]."""
    return torch.stack([(s.log_probability - b.log_probability).mean() for b, s in zip(base, scores, strict=True)])


@torch.inference_mode()
def score_prompts(
    model: Model,
    items: Sequence[Item],
    others: Sequence[Item],
    changed: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Scores:
    """Scores the same answers after two prompts: `items` of the model as it is are the base, `others` the one candidate.

    For system prompts, which change what the model reads instead of what it computes. changed: changes the model itself while
    the candidate is scored, in ways that cannot be told apart row by row.
    """
    none = RowEdits(model, [Candidate("base")])
    base, candidate = [], []
    for item, other in zip(items, others, strict=True):
        if item.answer != other.answer:
            raise ValueError("the two prompts must be followed by the same answer")
        logits = _answer_logits(model, [item], none, 0, None)
        with changed():
            logits += _answer_logits(model, [other], none, 0, None)
        rows = list(_token_scores(torch.cat(logits), item.answer))
        base.append(rows[0])
        candidate.append(rows[1])
    return Scores(tuple(base), (tuple(candidate),))


@torch.inference_mode()
def _score_group(
    model: Model, items: Sequence[Item], candidates: list[Candidate], tokens: int, progress: Progress | None
) -> list[list[TokenScores]]:
    variants = 1 + len(candidates)
    edits = RowEdits(model, [Candidate("base"), *candidates])
    sequences = [i.prompt + i.answer for i in items]
    prefix = min(shared_prefix(sequences), min(len(i.prompt) for i in items) - 1)
    cache = None
    if prefix >= SHORTEST_PREFIX:
        with edits.rows(torch.arange(variants), prefix):
            cache = filled_cache(model, sequences[0][:prefix], rows=variants)
    prefix = prefix if cache is not None else 0
    scores: list[list[TokenScores]] = [[_NOTHING] * len(items) for _ in range(variants)]
    advance = advancing(progress, "scoring answers", len(items))
    for members in in_batches([(len(s) - prefix) * variants for s in sequences], tokens):
        logits = _answer_logits(model, [items[i] for i in members], edits, prefix, cache)
        for number, i in enumerate(members):
            for variant, row in enumerate(_token_scores(logits[number], items[i].answer)):
                scores[variant][i] = row
        advance(len(members))
    return scores


_NOTHING = TokenScores(torch.zeros(0), torch.zeros(0), torch.zeros(0))


def _token_scores(logits: Tensor, answer: list[int]) -> Iterator[TokenScores]:
    """logits: [variants, tokens, vocabulary], the base model's first."""
    target = torch.tensor(answer, device=logits.device)[:, None]
    reference = logits[0].float()
    base = reference.log_softmax(-1)
    weights, likely = base.exp(), base.argmax(-1)
    weights /= weights.sum(-1, keepdim=True, dtype=widest(weights.device))
    yield TokenScores(base.gather(1, target)[:, 0].cpu().double(), torch.zeros(len(answer)).double(), likely.cpu() < 0)
    for row in logits[1:]:
        # With the centred change c of the logits (E[c] = 0 under the base model): KL = log E[e^c]. No second softmax over the
        # vocabulary, and nothing large is subtracted from something large.
        change = row.float() - reference
        change -= torch.linalg.vecdot(weights, change)[:, None]
        residue = torch.linalg.vecdot(weights, change)  # what rounding left
        log_mass = torch.linalg.vecdot(weights, change.expm1()).log1p()
        log_probability = base.gather(1, target)[:, 0] + change.gather(1, target)[:, 0] - log_mass
        kl = log_mass - residue
        flipped = (row.argmax(-1) != likely).cpu()
        if not bool(torch.isfinite(log_mass).all()):  # a token that the base model held for impossible: the long way
            other = row.float().log_softmax(-1)
            log_probability, kl = other.gather(1, target)[:, 0], (weights * (base - other)).sum(-1)
        yield TokenScores(log_probability.cpu().double(), kl.cpu().double().clamp_min(0), flipped)


def _answer_logits(model: Model, items: list[Item], edits: RowEdits, prefix: int, cache: Any | None) -> list[Tensor]:
    """[variants, answer tokens, vocabulary] of each item."""
    variants = edits.variants
    width = max(len(i.prompt) + len(i.answer) for i in items) - prefix
    ids = padded([(item.prompt + item.answer)[prefix:] for item in items])
    first = edits.first_block if cache is not None else 0
    # Rows: every candidate of the first item, then of the second, and so on.
    variant_of_row = torch.arange(variants).repeat(len(items))
    at_row = torch.cat([torch.full((len(i.answer) * variants,), n) for n, i in enumerate(items)]) * variants
    at_row += torch.cat([torch.arange(variants).repeat_interleave(len(i.answer)) for i in items])
    at = torch.cat([torch.arange(len(i.answer)).repeat(variants) + len(i.prompt) - prefix - 1 for i in items])
    with ExitStack() as stack:
        if first:
            below = _run_below(model, ids, first, cache)
            stack.enter_context(_start_at(model, first, below.repeat_interleave(variants, 0)))
        stack.enter_context(edits.rows(variant_of_row, width))
        stack.enter_context(only_at(model, at_row, at))
        arguments: dict[str, Any] = {"use_cache": cache is not None}
        if cache is not None:
            cache.pick(variant_of_row)
            arguments["past_key_values"] = cache
        logits: Tensor = model.network(
            input_ids=ids.repeat_interleave(variants, 0).to(model.device), **arguments
        ).logits[0]
    parts = torch.split(logits, [len(i.answer) * variants for i in items])
    return [part.view(variants, -1, part.shape[-1]) for part in parts]


def _run_below(model: Model, ids: Tensor, first: int, cache: Any) -> Tensor:
    """The hidden states [rows, tokens, hidden] that enter block `first` of the base model."""
    inputs: list[Tensor] = []

    def keep(module: nn.Module, arguments: Any, keywords: Any) -> None:
        inputs.append(arguments[0] if arguments else keywords["hidden_states"])
        raise ReachedError

    cache.pick(torch.zeros(len(ids), dtype=torch.long))
    block = model.network.get_submodule(model.anatomy.stack)[first]
    with hooked([block.register_forward_pre_hook(keep, with_kwargs=True)]), suppress(ReachedError):
        decoder_of(model)(input_ids=ids.to(model.device), past_key_values=cache, use_cache=True)
    return inputs[0]


@contextmanager
def _start_at(model: Model, first: int, hidden: Tensor) -> Iterator[None]:
    """Lets a pass begin at block `first` with these hidden states: the blocks below hand on what they get."""
    stack = model.network.get_submodule(model.anatomy.stack)

    def pass_on(states: Tensor, *_: Any, **__: Any) -> Tensor:
        return states

    def enter(module: nn.Module, arguments: Any, keywords: Any) -> Any:
        return ((hidden, *arguments[1:]), keywords) if arguments else ((), {**keywords, "hidden_states": hidden})

    below = list(stack[:first])
    forwards = [block.__dict__.get("forward") for block in below]  # a device map puts one on every block
    for block in below:
        block.forward = pass_on
    try:
        with hooked([stack[first].register_forward_pre_hook(enter, with_kwargs=True)]):
            yield
    finally:
        for block, forward in zip(below, forwards, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward


def only_at(model: Model, rows: Tensor, positions: Tensor) -> AbstractContextManager[None]:
    """Hands the language-model head nothing but these positions, as one row [1, n, hidden]."""

    def gather(module: nn.Module, arguments: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (chosen(output[0]), *output[1:])
        output["last_hidden_state"] = chosen(output["last_hidden_state"])
        return output

    def chosen(hidden: Tensor) -> Tensor:
        return hidden[rows.to(hidden.device), positions.to(hidden.device)][None]

    # The module that holds the blocks ends with the final norm; what it returns goes to the head, in every architecture.
    return registered([(model.network.get_submodule(model.anatomy.stack.rpartition(".")[0]), gather)])
