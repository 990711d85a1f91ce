"""One enhancement, evaluated: effect, damage, affinity, text statistics and side-by-side answers, on the report half."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import torch

from burnish.artifacts.direction import Enhancement
from burnish.checking import repetition, verdict_of
from burnish.errors import InputError
from burnish.evaluation.damage import (
    Damage,
    early_stop,
    perplexity,
    prose_items,
    refusals,
)
from burnish.evaluation.effect import Affinity, Effect, affinity, effect_of, fit_probe, shifts
from burnish.evaluation.methods import at_equal_damage, random_method
from burnish.evaluation.pairs import (
    Answered,
    Halves,
    Sample,
    answered_items,
    both_answers,
    damage_prompts,
    greedy_answers,
    made_pairs,
    pair_items,
    reference_pairs,
    samples_of,
    user_pairs,
)
from burnish.evaluation.text_statistics import measure
from burnish.maths.intervals import Interval, holm, interval
from burnish.model.divergence import divergence, prompt_kl
from burnish.model.model import Model
from burnish.model.scoring import Candidate, score
from burnish.options import EvaluateOptions
from burnish.prompts import PromptSet
from burnish.prompts.domains import Domain, load_general
from burnish.steps import Progress

NOTHING = 1e-7  # nats per token: rounding, not damage


@dataclass(frozen=True)
class StatisticChange:
    """A text statistic over the sampled answers of base and enhanced."""

    name: str
    base: float
    enhanced: float
    change: Interval
    p_adjusted: float  # Holm, over the statistics


@dataclass(frozen=True)
class Evaluation:
    """What got better, what else moved, and on how much that was measured."""

    model: str
    dtype: str
    domain: str | None
    seed: int
    effects: tuple[Effect, ...]  # one a kind of pairs
    damage: Damage
    specialised_kl: Interval  # movement on the domain's own held-out prompts: wanted, but to be known
    affinity: Affinity | None
    statistics: tuple[StatisticChange, ...]
    samples: tuple[Sample, ...]
    seconds: float
    versions: dict[str, str]

    @property
    def verdict(self) -> str:
        """The damage in plain words."""
        return verdict_of(self.damage.kl.mean, self.damage.repetition_base, self.damage.repetition_enhanced)


def evaluate(
    model: Model,
    enhancement: Enhancement,
    *,
    domain: Domain | None = None,
    pairs: PromptSet | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluates an enhancement of `model` on a packaged domain, on pairs of the user's, or both.

    Args:
        model: the base model; its weights are not changed.
        enhancement: made on this model.
        domain: whose reference answers and own pairs the effect is measured on.
        pairs: the user's own, with chosen and rejected answers.
        options: sizes and the seed.
        progress: told of every part that takes long.

    Returns:
        Effect above random directions and damage, in nats per token with intervals; text statistics and samples.

    Raises:
        InputError: there is neither a domain nor pairs.
        WrongModelError: the enhancement is of another model.
    """
    options = options or EvaluateOptions()
    if domain is None and pairs is None:
        raise InputError("An effect needs something to be measured on. Pass --domain NAME, --pairs FILE, or both.")
    enhancement.require(model.fingerprint, model.anatomy.layers, model.anatomy.hidden_size)
    started = time.perf_counter()
    candidate = Candidate("enhanced", enhancement)
    kinds = _pairs(model, domain, pairs, options, progress)
    language = domain.language if domain is not None else "en"
    candidates = [candidate, *_random_candidates(model, enhancement, language, options, progress)]
    effects = [_effect(model, kind, candidates, options, progress) for kind in kinds]
    special = domain.held_out if domain is not None else PromptSet("pairs", tuple(p.prompt for p in kinds[0].report))
    special = special.spread(options.samples)
    base, enhanced = both_answers(model, enhancement, special, options.sample_tokens, progress=progress)
    samples = samples_of(model, special, (base, enhanced))
    reading = None
    if len(kinds[0].tune) >= 4 and len(kinds[0].report) >= 2:
        probe = fit_probe(model, kinds[0].tune, kinds[0].report, progress=progress)
        reading = affinity(model, probe, [model.tokens(p) for p in special.prompts], base, enhanced)
    measures = domain.measures if domain is not None else ()
    return Evaluation(
        model=model.name,
        dtype=str(model.network.dtype).removeprefix("torch."),
        domain=None if domain is None else domain.name,
        seed=options.seed,
        effects=tuple(effects),
        damage=_damage(model, enhancement, language, options, progress),
        specialised_kl=_specialised(model, candidate, special, options, progress),
        affinity=reading,
        statistics=statistic_changes(
            [s.base for s in samples], [s.enhanced for s in samples], measures, seed=options.seed
        ),
        samples=samples,
        seconds=time.perf_counter() - started,
        versions={name: version(name) for name in ("burnish", "torch", "transformers")},
    )


def _random_candidates(
    model: Model, enhancement: Enhancement, language: str, options: EvaluateOptions, progress: Progress | None
) -> list[Candidate]:
    """Random directions with the damage that the enhancement has on the tuning half."""
    rows = greedy_answers(model, damage_prompts(load_general(language), options)[0], options, progress)
    items = answered_items(model, rows)
    scores = score(model, items, [Candidate("enhanced", enhancement)], progress=progress).candidates[0]
    damage = float(prompt_kl(scores).mean())
    if damage < NOTHING:
        return [Candidate("nothing")]
    direction = enhancement.directions[0]
    listed = [random_method(direction, options.seed + i) for i in range(options.random_directions)]
    return [s.candidate for s in at_equal_damage(model, items, listed, damage, progress=progress)]


def _effect(
    model: Model, kind: Halves, candidates: Sequence[Candidate], options: EvaluateOptions, progress: Progress | None
) -> Effect:
    """The effect of the first candidate above that of the others, the random ones."""
    scores = score(model, pair_items(model, kind.report), candidates, progress=progress)
    randoms = shifts(scores, range(1, len(candidates)))
    return effect_of(scores.base, scores.candidates[0], kind.kind, randoms, seed=options.seed)


def _pairs(
    model: Model, domain: Domain | None, pairs: PromptSet | None, options: EvaluateOptions, progress: Progress | None
) -> list[Halves]:
    halves = []
    if pairs is not None:
        halves.append(user_pairs(model, pairs, options))
    if domain is not None:
        if domain.references_report.prompts:
            halves.append(reference_pairs(model, domain, options, progress))
        halves.append(made_pairs(model, domain, options, progress))
    return halves


def _damage(
    model: Model, enhancement: Enhancement, language: str, options: EvaluateOptions, progress: Progress | None
) -> Damage:
    candidate = Candidate("enhanced", enhancement)
    prompts = damage_prompts(load_general(language), options)[1]
    rows = greedy_answers(model, prompts, options, progress)
    scores = score(model, answered_items(model, rows), [candidate], progress=progress)
    prose = score(model, prose_items(model, language, options.prompts), [candidate])
    base, enhanced = both_answers(model, enhancement, prompts, options.tokens, progress=progress)
    return Damage(
        **vars(divergence(scores.candidates[0], seed=options.seed)),
        perplexity_base=perplexity(prose.base),
        perplexity_enhanced=perplexity(prose.candidates[0]),
        repetition_base=repetition(base),
        repetition_enhanced=repetition(enhanced),
        early_stop_base=early_stop(base, options.tokens),
        early_stop_enhanced=early_stop(enhanced, options.tokens),
        **vars(refusals(model, enhancement, options.tokens, progress=progress)),
    )


def _specialised(
    model: Model, candidate: Candidate, prompts: PromptSet, options: EvaluateOptions, progress: Progress | None
) -> Interval:
    rows: list[Answered] = greedy_answers(model, prompts, options, progress)
    scores = score(model, answered_items(model, rows), [candidate], progress=progress)
    return divergence(scores.candidates[0], seed=options.seed).kl


def statistic_changes(
    base: Sequence[str], enhanced: Sequence[str], measures: Sequence[str], *, seed: int = 0
) -> tuple[StatisticChange, ...]:
    """Every statistic of the measures and the general ones, paired by prompt, Holm-adjusted together."""
    before, after = measure(base, measures), measure(enhanced, measures)
    changes = {name: interval(torch.tensor(after[name]) - torch.tensor(before[name]), seed=seed) for name in before}
    adjusted = holm([change.p for change in changes.values()])
    return tuple(
        StatisticChange(name, sum(before[name]) / len(base), sum(after[name]) / len(base), change, p)
        for (name, change), p in zip(changes.items(), adjusted, strict=True)
    )
