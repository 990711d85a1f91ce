"""The same edit at several strengths: what everyday prompts lose and good answers gain, from two passes over few prompts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from burnish.artifacts.direction import Enhancement
from burnish.evaluation.material import Answered, answered_items, damage_prompts, greedy_answers
from burnish.explaining.facts import Dose, DoseCurve
from burnish.maths.intervals import interval
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Progress, TokenScores, score
from burnish.options import EvaluateOptions
from burnish.prompts.domains import load_general

MULTIPLES = (0.25, 0.5, 1.0, 1.5, 2.0)


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
    rows = greedy_answers(model, everyday, options, progress)
    plans = [Candidate(f"{multiple:g}", enhancement.scaled(multiple)) for multiple in MULTIPLES]
    found = score(model, answered_items(model, [*rows, *answers]), plans, progress=progress)
    doses = []
    for multiple, scores in zip(MULTIPLES, found.candidates, strict=True):
        moved = [s.kl for s in scores[: len(rows)]]
        change = _changes(found.base[len(rows) :], scores[len(rows) :])
        doses.append(
            Dose(
                multiple,
                interval(torch.stack([kl.mean() for kl in moved]), seed=options.seed),
                float(torch.cat(moved).quantile(0.95)),
                interval(change, seed=options.seed) if len(answers) else None,
            )
        )
    return DoseCurve(aim, len(rows), len(answers), tuple(doses))


def _changes(base: Sequence[TokenScores], scores: Sequence[TokenScores]) -> Tensor:
    """Change of each answer's log probability per token, [answers]."""
    pairs = zip(base, scores, strict=True)
    return torch.tensor([float((s.log_probability - b.log_probability).mean()) for b, s in pairs])
