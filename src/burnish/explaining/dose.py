"""The same edit at several strengths: what everyday prompts lose and good answers gain, measured on few prompts."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from burnish.artifacts.direction import Enhancement
from burnish.evaluation.comparison import DOSES
from burnish.evaluation.pairs import Answered, answered_items, damage_prompts, greedy_answers
from burnish.explaining.facts import Dose, DoseCurve
from burnish.maths.intervals import interval
from burnish.model.divergence import divergence
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Item, TokenScores, likelihood_changes, score
from burnish.options import EvaluateOptions
from burnish.prompts.domains import load_general
from burnish.steps import Progress, Steps, finish


def dose_curve(
    model: Model,
    enhancement: Enhancement,
    language: str,
    answers: Sequence[Answered],
    aim: str,
    options: EvaluateOptions,
    *,
    progress: Progress | None = None,
) -> DoseCurve:
    """Damage and likelihood at multiples of the gains.

    answers: good answers, whose likelihood is followed; aim: what they are, in words. Damage is the mean KL on `options.prompts` everyday
    and protect prompts that nothing is chosen on. Random directions are not measured beside: `burnish evaluate` does.
    """
    everyday = damage_prompts(load_general(language), options)[1]
    rows = answered_items(model, greedy_answers(model, everyday, options, progress))
    good = answered_items(model, answers)
    measured = finish(doses(model, enhancement, rows, good, DOSES, seed=options.seed, progress=progress))
    return DoseCurve(aim, len(rows), len(good), measured)


def doses(
    model: Model,
    enhancement: Enhancement,
    everyday: Sequence[Item],
    good: Sequence[Item],
    multiples: Sequence[float],
    *,
    at_once: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Steps[tuple[Dose, ...]]:
    """Each strength measured: damage on `everyday`, likelihood on `good` where there are any.

    at_once: items (prompts with their answers) a piece, by default all.
    """
    plans = [Candidate(f"{multiple:g}", enhancement.scaled(multiple)) for multiple in multiples]
    moved: list[list[TokenScores]] = [[] for _ in plans]
    changes: list[list[Tensor]] = [[] for _ in plans]
    for part in _parts(everyday, at_once):
        yield
        for rows, scores in zip(moved, score(model, part, plans, progress=progress).candidates, strict=True):
            rows += scores
    for part in _parts(good, at_once):
        yield
        scored = score(model, part, plans, progress=progress)
        for change, scores in zip(changes, scored.candidates, strict=True):
            change.append(likelihood_changes(scored.base, scores))
    damage = [divergence(rows, seed=seed) for rows in moved]
    gains = [interval(torch.cat(change), seed=seed) if change else None for change in changes]
    return tuple(Dose(m, d.kl, d.kl_p95, g) for m, d, g in zip(multiples, damage, gains, strict=True))


def _parts(items: Sequence[Item], size: int | None) -> Iterator[Sequence[Item]]:
    size = size or max(1, len(items))
    return (items[start : start + size] for start in range(0, len(items), size))
