"""The search over few numbers, for where nothing can be differentiated: one bump over depth for each choice of directions."""

import hashlib
import json
import math
import numbers
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from torch import Tensor

from burnish.artifacts.direction import Enhancement
from burnish.errors import InputError, ModelError, WrongModelError
from burnish.evaluation.material import answered_items
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Progress, score
from burnish.options import TuneOptions
from burnish.prompts import PromptSet
from burnish.tuning.journal import Journal, Outcome, Parameters, SearchTrial, quiet
from burnish.tuning.material import Scorer
from burnish.tuning.objective import SLACK, Material, measure

DOSE = (0.02, 4.0)  # the largest gain
CENTRE = (0.0, 1.0)  # of the bump, as a share of the depth
WIDTH = (0.05, 1.5)  # its standard deviation, as a share of the depth: wide is the same gain everywhere
PRUNE = 1.5  # budgets: a candidate certainly beyond them is not measured to the end
EARLY = 4  # every fourth general item is scored first
SCORER_PROMPTS = 8
PAUSE = 0.2  # seconds between looks at the journal while other processes run the last trials

Evaluator = Callable[[Sequence[Enhancement]], Sequence[Outcome]]
T = TypeVar("T")


@dataclass(frozen=True)
class SearchSpace:
    """What is searched over. The gains of a choice are a template that the bump is multiplied by: 1, or 0 in layers that may not be
    edited. Raises InputError without a choice."""

    choices: Mapping[str, Enhancement]
    seeds: Sequence[Parameters] = ()  # tried first, moved into the ranges; numbers left out are sampled

    def __post_init__(self) -> None:
        if not self.choices:
            raise InputError("A search needs directions to choose from. Pass at least one enhancement.")

    @property
    def rank(self) -> int:
        """The largest number of directions of a choice. A choice of fewer ignores the last weights."""
        return max(enhancement.rank for enhancement in self.choices.values())

    def distributions(self) -> dict[str, BaseDistribution]:
        """Every parameter with its range."""
        found: dict[str, BaseDistribution] = {}
        if len(self.choices) > 1:
            found["choice"] = CategoricalDistribution(list(self.choices))
        found["dose"] = FloatDistribution(*DOSE, log=True)
        found["centre"] = FloatDistribution(*CENTRE)
        found["width"] = FloatDistribution(*WIDTH)
        if self.rank > 1:
            found |= {f"weight_{number}": FloatDistribution(-1.0, 1.0) for number in range(self.rank)}
        return found


@dataclass(frozen=True)
class SearchResult:
    trials: tuple[SearchTrial, ...]  # finished ones, by number
    frontier: tuple[SearchTrial, ...]  # feasible ones that no other beats in both effect and damage, by damage
    chosen: SearchTrial | None  # the largest effect within the budget; None where nothing is
    pruned: int


def gains_of(parameters: Parameters, layers: int, k: int) -> Tensor:
    """[layers, k], float32: dose * weight * exp(-((depth - centre) / width)^2 / 2), depth from 0 to 1. One direction weighs 1."""
    dose, centre, width = (float(parameters[name]) for name in ("dose", "centre", "width"))
    depth = torch.arange(layers, dtype=torch.float64) / max(1, layers - 1)
    bump = dose * torch.exp(-0.5 * ((depth - centre) / width) ** 2)
    weights = [float(parameters[f"weight_{number}"]) for number in range(k)] if k > 1 else [1.0]
    return torch.outer(bump, torch.tensor(weights, dtype=torch.float64)).float()


def enhancement_of(parameters: Parameters, space: SearchSpace) -> Enhancement:
    """The trial's choice with the trial's gains."""
    template = space.choices[str(parameters.get("choice", next(iter(space.choices))))]
    gains = template.gains * gains_of(parameters, *template.gains.shape)
    return replace(template, gains=gains.clamp_min(-1))  # below -1 a component would be turned around


def search(
    space: SearchSpace,
    evaluate: Evaluator,
    *,
    trials: int,
    seed: int,
    identity: str,
    journal: Path | None = None,
    batch: int = 8,
    progress: Progress | None = None,
) -> SearchResult:
    """Asks and measures until `trials` are finished, by all processes that share the journal.

    identity: a hash of what is measured (model, prompts, options, but not `trials`). The same inputs give the same trials, however
    often a search was killed and started again. Raises InputError for a journal of another search, and what `evaluate` raises.
    """
    if trials < 1 or batch < 1:
        raise InputError(f"A search of {trials} trials in batches of {batch} does nothing. Pass at least 1 of each.")
    ranks = {name: enhancement.rank for name, enhancement in space.choices.items()}
    full = hashlib.sha256(json.dumps([identity, ranks, seed, batch]).encode()).hexdigest()
    seeds = [_within(parameters, space.distributions()) for parameters in space.seeds]
    with quiet():
        kept = Journal(journal, full, space.distributions(), seed)
        while (done := len(kept.finished())) < trials:
            asked = kept.ask(batch, trials, seeds)
            if progress is not None:
                progress("searching" if asked else "waiting for other processes", done, trials)
            if not asked:
                time.sleep(PAUSE)
                continue
            try:
                found = evaluate([enhancement_of(parameters, space) for parameters in asked.values()])
                if not all(o.pruned or math.isfinite(o.effect + o.damage) for o in found):
                    raise ValueError(f"effect and damage must be finite, and the evaluator returned {found}")
                kept.record(dict(zip(asked, found, strict=True)))
            finally:
                kept.settle(asked)
        return result_of(kept.finished())


def result_of(trials: Sequence[SearchTrial]) -> SearchResult:
    """What finished trials show."""
    feasible = [trial for trial in trials if trial.state == "complete" and trial.outcome.feasible]
    frontier: list[SearchTrial] = []
    for trial in sorted(feasible, key=lambda t: (t.outcome.damage, -t.outcome.effect, t.number)):
        if not frontier or trial.outcome.effect > frontier[-1].outcome.effect:
            frontier.append(trial)
    inside = [trial for trial in frontier if trial.outcome.damage <= SLACK]
    return SearchResult(
        trials=tuple(trials),
        frontier=tuple(frontier),
        chosen=inside[-1] if inside else None,  # the effect grows along the frontier
        pruned=sum(trial.state == "pruned" for trial in trials),
    )


def lower_bound(kl: Sequence[Tensor], total: int) -> float:
    """At most the mean KL over `total` tokens, from some of their answers (a tensor each): what is left out is not negative."""
    return sum(float(answer.double().sum()) for answer in kl) / total


def evaluator(
    model: Model,
    material: Material,
    options: TuneOptions,
    *,
    scorer: Scorer | None = None,
    scorer_prompts: PromptSet | None = None,
) -> Evaluator:
    """Measures a batch of candidates on the tuning half. Those beyond `PRUNE` budgets, or so strong that the model computes no
    numbers, are pruned.

    scorer: with it the effect is the mean change of the score of greedy answers on at most 8 of `scorer_prompts`; what it cannot
    score (None) is left out. Raises InputError for a scorer without prompts or with a score that is no number, ModelError where the
    base model already computes none.
    """
    general = material.general[0]
    sample, total = answered_items(model, general[::EARLY]), sum(len(row.answer) for row in general)
    measure(model, material, [])
    prompts = (scorer_prompts or PromptSet("none", ())).spread(SCORER_PROMPTS)
    if scorer is not None and not len(prompts):
        raise InputError("A scorer needs prompts to answer. Pass scorer_prompts.")
    base = [] if scorer is None else _scores(model, scorer, prompts, options)

    def bounds(candidates: Sequence[Candidate]) -> list[float]:
        rows = score(model, sample, candidates).candidates
        return [lower_bound([scores.kl for scores in row], total) / options.budget for row in rows]

    def evaluate(enhancements: Sequence[Enhancement]) -> list[Outcome]:
        candidates = [Candidate("trial", enhancement) for enhancement in enhancements]
        early = [math.inf if bound is None else bound for bound in _apart(bounds, candidates)]
        kept = [number for number, bound in enumerate(early) if bound <= PRUNE]
        points = _apart(lambda part: measure(model, material, part), [candidates[number] for number in kept])
        outcomes = [Outcome(0.0, bound, feasible=False, pruned=True) for bound in early]
        for number, point in zip(kept, points, strict=True):
            damage = math.inf if point is None else point.load(options)
            if point is None or (scorer is not None and damage > PRUNE):  # answering is what takes time
                outcomes[number] = Outcome(0.0, damage, feasible=False, pruned=True)
                continue
            effect = point.effect
            if scorer is not None:
                with model.enhanced(enhancements[number]):
                    effect = _mean_change(base, _scores(model, scorer, prompts, options))
            outcomes[number] = Outcome(effect, damage, point.keeps_likelihood(material.aims))
        return outcomes

    return evaluate


def _apart(measured: Callable[[Sequence[Candidate]], Sequence[T]], candidates: Sequence[Candidate]) -> list[T | None]:
    """What is measured of each candidate, None for one that makes the model compute no numbers: it must not end the search of all."""
    if not candidates:
        return []
    try:
        return list(measured(candidates))
    except WrongModelError:
        raise
    except ModelError:
        if len(candidates) == 1:
            return [None]
    middle = len(candidates) // 2
    return _apart(measured, candidates[:middle]) + _apart(measured, candidates[middle:])


def _scores(model: Model, scorer: Scorer, prompts: PromptSet, options: TuneOptions) -> list[float | None]:
    answers = model.generate(prompts.prompts, tokens=2 * options.tokens)
    found = [scorer(prompt, answer) for prompt, answer in zip(prompts.texts, answers, strict=True)]
    for value, prompt in zip(found, prompts.texts, strict=True):
        if value is not None and not (isinstance(value, numbers.Real) and math.isfinite(value)):
            raise InputError(
                f"The scorer returned {value!r} for an answer to '{prompt[:60]}', which has no place in a mean. Return a finite "
                "number, more for better answers, or None for what cannot be scored."
            )
    return found


def _mean_change(base: Sequence[float | None], scores: Sequence[float | None]) -> float:
    changes = [float(new - old) for old, new in zip(base, scores, strict=True) if old is not None and new is not None]
    if not changes:
        raise InputError(
            "The scorer could score no prompt's answer both with and without an edit, so that there is nothing to compare. Pass "
            "other prompts or another scorer."
        )
    return sum(changes) / len(changes)


def _within(parameters: Parameters, distributions: Mapping[str, BaseDistribution]) -> Parameters:
    """Parameters moved into their ranges. Raises ValueError for a name that is not searched over."""
    if unknown := parameters.keys() - distributions.keys() - {"choice"}:
        raise ValueError(f"{', '.join(sorted(unknown))}: not searched over")
    found: dict[str, float | str] = {}
    for name, distribution in distributions.items():
        if name in parameters:
            value = parameters[name]
            if isinstance(distribution, FloatDistribution):
                value = min(max(float(value), distribution.low), distribution.high)
            found[name] = value
    return found
