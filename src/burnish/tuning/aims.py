"""From specialities to what tuning needs: directions, aims and prompts to leave alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from burnish.artifacts.direction import Direction, Enhancement
from burnish.errors import InputError
from burnish.evaluation.pairs import (
    Answered,
    Halves,
    Pair,
    base_answers,
    damage_prompts,
    greedy_answers,
    halves,
    made_pairs,
    reference_pairs,
    user_pairs,
)
from burnish.finding import found_direction
from burnish.languages import language_of
from burnish.maths.statistics import unit
from burnish.model.model import Model
from burnish.options import FindOptions, TuneOptions
from burnish.prompts import Prompt, PromptSet
from burnish.prompts.contrast import Contrast, domain_contrast
from burnish.prompts.domains import Domain, load_general, load_protect
from burnish.prompts.domains.own import EXPERT, split
from burnish.steps import Progress
from burnish.tuning.objective import Aim, Material

Scorer = Callable[[str, str], float | None]  # (prompt, answer) -> more is better; None: could not be scored
EVERYDAY = 70  # everyday and protect prompts in each half on which the chosen gains must keep the budget
T = TypeVar("T")
SCORED_ANSWERS = 4  # samples a prompt that a scorer ranks


@dataclass(frozen=True)
class Speciality:
    """A domain, packaged or made from the user's files, and how much it counts. weight: negative tones it down."""

    domain: Domain
    weight: float = 1.0
    pairs: PromptSet | None = None  # the user's own: prompt, chosen, rejected
    normal: PromptSet | None = None  # what its prompts are contrasted with; by default the packaged general set


def own_domain(
    enhance: PromptSet,
    *,
    references: PromptSet | None = None,
    expert: str | None = None,
    seed: int = 0,
) -> Domain:
    """A domain from the user's files. A quarter of the prompts, at least 8, is held out for the self-made pairs.

    references: prompts with good answers (rows without `rejected`); expert: the system prompt of the self-made pairs.
    Raises InputError for files that are too small.
    """
    held, tune = split(enhance, references, seed)
    none = PromptSet("no references", ())
    good = (none, none) if references is None else halves(references)
    return Domain(
        name=enhance.name,
        title=enhance.name,
        language=language_of(enhance.texts),
        summary="",
        expert_system_prompt=expert or EXPERT,
        measures=(),
        enhance=tune,
        held_out=held,
        references_tune=good[0],
        references_report=good[1],
    )


def directions_of(
    model: Model, speciality: Speciality, options: TuneOptions, progress: Progress | None = None
) -> list[Direction]:
    """The speciality's directions, one of each kind a layer, as `options.basis` asks. Source of the choice: what attention writes
    tunes better than the residual stream, and prompt and answer directions are nearly orthogonal (docs/method.md)."""
    domain, from_prompts = speciality.domain, domain_contrast(speciality.domain, speciality.normal)

    def direction(contrast: Contrast, **how: Any) -> Direction:
        return found_direction(model, contrast, FindOptions(scope="per-layer", seed=options.seed, **how), progress)

    if options.basis == "residual":
        return [direction(from_prompts)]
    good, held_references = domain.references_tune, domain.references_report
    listed: list[Direction] = []
    if options.basis in ("prompt", "both") or not good.prompts:
        listed.append(direction(from_prompts, site="attention", protect=True))
    if options.basis in ("answer", "both") and good.prompts:
        plain, held = (own_answers(model, prompts, options, progress) for prompts in (good, held_references))
        spared = load_general(domain.language).prompts.joined(load_protect())
        from_answers = Contrast(good, plain, (held_references, held), spared)
        listed.append(direction(from_answers, site="attention", position="answer", protect=True))
    return listed


def own_answers(model: Model, prompts: PromptSet, options: TuneOptions, progress: Progress | None) -> PromptSet:
    """The same prompts with the base model's greedy answers (cached); prompts that it answers with nothing are left out."""
    bare = replace(prompts.without_answers(), name=f"{prompts.name} (own answers)")
    answers = base_answers(model, bare, options.answer_tokens, progress=progress)
    texts = [str(model.tokenizer.decode(a, skip_special_tokens=True)) for a in answers]
    rows = zip(bare.prompts, texts, strict=True)
    return PromptSet(bare.name, tuple(replace(p, answer=text) for p, text in rows if text.strip()))


def random_template(like: Enhancement, seed: int) -> Enhancement:
    """As many random directions in every layer."""
    generator = torch.Generator().manual_seed(2_000_003 + seed)
    return replace(like, vectors=unit(torch.randn(like.vectors.shape, generator=generator)))


def gather(
    model: Model,
    specialities: Sequence[Speciality],
    options: TuneOptions,
    *,
    scorer: Scorer | None = None,
    progress: Progress | None = None,
) -> Material:
    """Pairs, and everyday and specialised prompts with the base model's answers. Raises InputError when nothing is aimed at."""
    how = options.measuring
    aims: list[Aim] = []
    special: tuple[list[Answered], list[Answered]] = ([], [])
    for speciality in specialities:
        domain, weight = speciality.domain, speciality.weight
        if speciality.pairs is not None:
            aims.append(Aim(domain.name, _capped(user_pairs(model, speciality.pairs, how), options), weight))
        if scorer is not None:
            aims.append(Aim(domain.name, scored_pairs(model, domain.held_out, scorer, options, progress), weight))
        if domain.references_tune.prompts and options.references_weight:
            pairs = reference_pairs(model, domain, how, progress)
            aims.append(Aim(domain.name, _capped(pairs, options), weight * options.references_weight))
        if options.made_weight:
            made = _capped(made_pairs(model, domain, how, progress), options)
            aims.append(Aim(domain.name, made, weight * options.made_weight))
        for answers, prompts in zip(special, halves(domain.held_out), strict=True):
            answers += greedy_answers(model, prompts.spread(options.prompts), how, progress)
    if not aims:
        raise InputError(
            "There is nothing to aim at: no reference answers, and --made-weight 0. Pass --references FILE or --pairs FILE."
        )
    wider = replace(how, prompts=EVERYDAY)
    both = damage_prompts(load_general(specialities[0].domain.language), wider)
    everyday = [tuple(greedy_answers(model, half, wider, progress)) for half in both]
    general = [_spread(rows, options.prompts) for rows in everyday]
    return Material(
        aims=tuple(aims),
        everyday=(everyday[0], everyday[1]),
        general=(general[0], general[1]),
        special=(tuple(special[0]), tuple(special[1])),
    )


def _spread(rows: tuple[T, ...], count: int) -> tuple[T, ...]:
    """At most `count` rows, spread over all of them."""
    count = min(count, len(rows))
    return tuple(rows[i * len(rows) // count] for i in range(count))


def _capped(pairs: Halves, options: TuneOptions) -> Halves:
    """At most `options.prompts` pairs to choose on, spread over the whole half; the report half stays."""
    return replace(pairs, tune=_spread(pairs.tune, options.prompts))


def scored_pairs(
    model: Model, prompts: PromptSet, scorer: Scorer, options: TuneOptions, progress: Progress | None = None
) -> Halves:
    """Samples of the base model ranked by a scorer: the best against the worst. Prompts whose samples all score alike are left out.

    Raises InputError for a scorer that gives no number, or that finds hardly any difference.
    """
    both_halves: list[list[Pair]] = []
    for half in halves(prompts):
        drawn = [
            base_answers(model, half, options.tokens, seed=options.seed + 1000 * n, progress=progress)
            for n in range(SCORED_ANSWERS)
        ]
        rows = []
        for prompt, answers in zip(half.prompts, zip(*drawn, strict=True), strict=True):
            texts = [(a, str(model.tokenizer.decode(a, skip_special_tokens=True))) for a in answers if a]
            scored = [(score, a) for a, text in texts if (score := _scored(scorer, prompt.text, text)) is not None]
            if scored and max(scored)[0] > min(scored)[0]:
                rows.append(Pair(Prompt(prompt.messages), max(scored)[1], min(scored)[1]))
        both_halves.append(rows)
    if min(map(len, both_halves)) < 4:
        raise InputError(
            f"The scorer told apart the answers of only {min(map(len, both_halves))} prompts in a half: too few to aim at. Use one with finer "
            "scores, or more prompts."
        )
    return Halves("user", tuple(both_halves[0]), tuple(both_halves[1]))


def _scored(scorer: Scorer, prompt: str, answer: str) -> float | None:
    value = scorer(prompt, answer)
    if value is None:
        return None
    if not isinstance(value, int | float) or value != value:
        raise InputError(f"The scorer returned {value!r} and not a number. Return more for better answers.")
    return float(value)
