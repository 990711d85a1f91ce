"""What an evaluation is measured on: prompts, pairs and the base model's own answers, in two halves.

The tuning half is for choosing (scales, thresholds), the report half for the figures. Answers that the base model makes are
cached on disk by model, prompts and options.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from burnish.artifacts.cache import cached
from burnish.artifacts.direction import Enhancement
from burnish.errors import InputError, ModelError
from burnish.model.model import ANSWERS, Model
from burnish.model.scoring import Item
from burnish.options import EvaluateOptions
from burnish.prompts import Prompt, PromptSet
from burnish.prompts.domains import Domain, GeneralSet, load_protect
from burnish.steps import Progress, advancing

PairKind = Literal["references", "made", "user"]


@dataclass(frozen=True)
class Answered:
    """A prompt and an answer to it, as tokens."""

    prompt: Prompt
    answer: list[int]


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, as tokens: one as it should be and an ordinary one."""

    prompt: Prompt
    chosen: list[int]
    rejected: list[int]


def answered_items(model: Model, rows: Sequence[Answered], system: str | None = None) -> list[Item]:
    """Rows as items to score, read with a system prompt if one is given."""
    return [Item(model.tokens(row.prompt, system), row.answer) for row in rows]


def pair_rows(pairs: Sequence[Pair]) -> list[Answered]:
    """Chosen answers, then rejected ones."""
    return [Answered(p.prompt, p.chosen) for p in pairs] + [Answered(p.prompt, p.rejected) for p in pairs]


def pair_items(model: Model, pairs: Sequence[Pair], system: str | None = None) -> list[Item]:
    """The same as items to score."""
    return answered_items(model, pair_rows(pairs), system)


@dataclass(frozen=True)
class Halves:
    """Pairs of one kind."""

    kind: PairKind
    tune: tuple[Pair, ...]
    report: tuple[Pair, ...]


def halves(prompts: PromptSet) -> tuple[PromptSet, PromptSet]:
    """(tuning half, report half): every other prompt, so that both cover the whole set."""
    return (
        PromptSet(prompts.name, prompts.prompts[::2]),
        PromptSet(prompts.name, prompts.prompts[1::2]),
    )


def damage_prompts(general: GeneralSet, options: EvaluateOptions) -> tuple[PromptSet, PromptSet]:
    """Held-out general prompts and protect prompts, in halves of at most `options.prompts` each."""
    tune, report = halves(general.held_out.joined(load_protect()))
    return tune.spread(options.prompts), report.spread(options.prompts)


def greedy_answers(
    model: Model, prompts: PromptSet, options: EvaluateOptions, progress: Progress | None
) -> list[Answered]:
    """The base model's own greedy continuations, cached; prompts that it answers with nothing are left out."""
    answers = base_answers(model, prompts, options.tokens, progress=progress)
    return [Answered(p, answer) for p, answer in zip(prompts.prompts, answers, strict=True) if answer]


def base_answers(
    model: Model,
    prompts: PromptSet,
    tokens: int,
    *,
    system: str | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> list[list[int]]:
    """The base model's answers as tokens: greedy, or with `seed` sampled; cached on disk."""
    identity = {
        "model": model.fingerprint,
        "dtype": str(model.network.dtype),
        "template": getattr(model.tokenizer, "chat_template", None),
        "prompts": prompts.hash,
        "system": system,
        "tokens": tokens,
        "seed": seed,
        "batch": f"{ANSWERS}, shortest first",
    }

    def make() -> list[list[int]]:
        asked = [model.tokens(p, system) for p in prompts.prompts]
        advance = advancing(progress, f"answering {prompts.name}", len(prompts))
        if seed is None:
            return model.continuations(asked, tokens, advance=advance)
        return model.samples(asked, tokens, seed=seed, advance=advance)

    answers: list[list[int]] = cached("answers", identity, make)
    return answers


def both_answers(
    model: Model, enhancement: Enhancement, prompts: PromptSet, tokens: int, *, progress: Progress | None = None
) -> tuple[list[list[int]], list[list[int]]]:
    """Greedy answers of base (cached) and enhanced, as tokens."""
    base = base_answers(model, prompts, tokens, progress=progress)
    advance = advancing(progress, f"answering {prompts.name}, enhanced", len(prompts))
    with model.enhanced(enhancement):
        return base, model.continuations([model.tokens(p) for p in prompts.prompts], tokens, advance=advance)


@dataclass(frozen=True)
class Sample:
    """Answers of base and enhanced to one prompt, as text."""

    prompt: str
    base: str
    enhanced: str


def samples_of(
    model: Model, prompts: PromptSet, answers: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]
) -> tuple[Sample, ...]:
    """answers: of base and enhanced, as `both_answers` gives them."""
    texts = [[str(model.tokenizer.decode(a, skip_special_tokens=True)).strip() for a in rows] for rows in answers]
    return tuple(Sample(*row) for row in zip(prompts.texts, *texts, strict=True))


def reference_pairs(model: Model, domain: Domain, options: EvaluateOptions, progress: Progress | None) -> Halves:
    """The domain's reference answers against the base model's own samples to the same prompts."""
    tune, report = (
        _against_own(model, prompts, options, progress)
        for prompts in (domain.references_tune, domain.references_report)
    )
    return Halves("references", tune, report)


def _against_own(
    model: Model, prompts: PromptSet, options: EvaluateOptions, progress: Progress | None
) -> tuple[Pair, ...]:
    base = base_answers(model, prompts.without_answers(), options.answer_tokens, seed=options.seed, progress=progress)
    chosen = [answer_tokens(model, p.answer, options) for p in prompts.prompts]
    return _pairs(prompts.prompts, chosen, base)


def made_pairs(model: Model, domain: Domain, options: EvaluateOptions, progress: Progress | None) -> Halves:
    """Samples with the domain's expert system prompt against samples without it, on held-out prompts."""
    both_halves = []
    for prompts in halves(domain.held_out):
        expert = base_answers(
            model, prompts, options.tokens, system=domain.expert_system_prompt, seed=options.seed, progress=progress
        )
        plain = base_answers(model, prompts, options.tokens, seed=options.seed, progress=progress)
        both_halves.append(_pairs(prompts.prompts, expert, plain))
    return Halves("made", both_halves[0], both_halves[1])


def user_pairs(model: Model, prompts: PromptSet, options: EvaluateOptions) -> Halves:
    """Rows with `prompt`, `chosen` and `rejected`. Raises InputError for rows without both answers."""
    for number, row in enumerate(prompts.prompts, 1):
        if row.answer is None or row.rejected is None:
            raise InputError(
                f"Row {number} of '{prompts.name}' has no {'chosen' if row.answer is None else 'rejected'} answer. Pairs need "
                'rows such as {"prompt": "...", "chosen": "...", "rejected": "..."}.'
            )
    if len(prompts) < 8:
        raise InputError(f"'{prompts.name}' has {len(prompts)} pairs: too few for two halves. Write at least 8.")
    both_halves = []
    for half in halves(prompts):
        chosen = [answer_tokens(model, p.answer, options) for p in half.prompts]
        rejected = [answer_tokens(model, p.rejected, options) for p in half.prompts]
        both_halves.append(_pairs(half.prompts, chosen, rejected))
    return Halves("user", both_halves[0], both_halves[1])


def answer_tokens(model: Model, text: str | None, options: EvaluateOptions) -> list[int]:
    """A written answer as tokens, cut to `options.answer_tokens`."""
    return model.encode(text or "")[: options.answer_tokens]


def _pairs(prompts: Sequence[Prompt], chosen: list[list[int]], rejected: list[list[int]]) -> tuple[Pair, ...]:
    """Pairs in which neither answer is empty. Raises ModelError when hardly any are left."""
    rows = zip(prompts, chosen, rejected, strict=True)
    pairs = tuple(Pair(Prompt(p.messages), a, b) for p, a, b in rows if a and b)
    if len(pairs) < 2:
        raise ModelError(
            f"Only {len(pairs)} of {len(prompts)} pairs have two answers with text: the model answers with nothing. Check its chat "
            "template and its end-of-text token."
        )
    return pairs
