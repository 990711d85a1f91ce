"""What tuning aims at and what it may cost, measured for many candidates at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from burnish.artifacts.direction import Enhancement
from burnish.evaluation.effect import pair_changes, ships
from burnish.evaluation.pairs import Answered, Halves, PairKind, answered_items, pair_items
from burnish.model.divergence import prompt_kl
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Item, TokenScores, score
from burnish.options import TuneOptions
from burnish.steps import Progress

P95_RATIO = 10.0  # the 95th percentile of the KL may be this many budgets (it is 4 to 6 means on SmolLM2)


@dataclass(frozen=True)
class Aim:
    """One kind of pairs of one speciality. weight: how much it counts; negative tones the speciality down."""

    name: str  # of the speciality
    pairs: Halves
    weight: float

    @property
    def kind(self) -> PairKind:
        return self.pairs.kind


@dataclass(frozen=True)
class Material:
    """Everything that is measured, in two halves: only `tune` is used for choosing."""

    aims: tuple[Aim, ...]
    everyday: tuple[
        tuple[Answered, ...], tuple[Answered, ...]
    ]  # (tune, report): every one, for the last word on damage
    general: tuple[tuple[Answered, ...], tuple[Answered, ...]]  # some of them, for everything else
    special: tuple[tuple[Answered, ...], tuple[Answered, ...]]


@dataclass(frozen=True)
class Point:
    """A candidate on one half: effect and damage in nats per token."""

    rows: Tensor  # [pairs of all aims], whose mean is the effect
    effect: float  # weighted sum over the aims of what counts
    changes: tuple[tuple[Tensor, Tensor], ...]  # by aim: of each pair's chosen and rejected answer
    tokens: tuple[int, ...]  # of each aim's answers
    likelihood: tuple[float, ...]  # change of log p(chosen), by aim
    shift: tuple[float | None, ...]  # change of log p(chosen) - log p(rejected), by aim; None where not scored
    kl: float  # on general and protect prompts
    kl_p95: float
    special_kl: float  # on the speciality's own prompts

    def load(self, options: TuneOptions) -> float:
        """The tightest bound's use: 1 is the limit."""
        return max(
            self.kl / options.budget, self.kl_p95 / (P95_RATIO * options.budget), self.special_kl / options.movement
        )

    def ships(self, aims: Sequence[Aim], options: TuneOptions) -> bool:
        """Within the bounds, and the effect is not won by making good answers that are aimed at less likely on average."""
        likelihoods = (change for change, aim in zip(self.likelihood, aims, strict=True) if aim.weight > 0)
        return ships(self.load(options), ((self.effect, change) for change in likelihoods))


def counted(kind: PairKind, chosen: Tensor, rejected: Tensor) -> Tensor:
    """What of a kind of pairs counts: the likelihood of reference answers (their other side, the base model's own samples,
    becomes unlikely under any edit), the shift of self-made and users' pairs."""
    return chosen if kind == "references" else chosen - rejected


def measure(
    model: Model,
    material: Material,
    candidates: Sequence[Candidate],
    *,
    report: bool = False,
    progress: Progress | None = None,
) -> list[Point]:
    """Every candidate on the tuning half (or the report half), in one pass for each kind of items."""
    return _measure(model, material, material.aims, candidates, int(report), progress)


def damage_of(
    model: Model, material: Material, candidates: Sequence[Candidate], *, progress: Progress | None = None
) -> list[Point]:
    """Damage alone on the tuning half; the effects are empty."""
    return _measure(model, material, (), candidates, 0, progress)


def damage_on(
    model: Model, rows: Sequence[Answered], plans: Sequence[Enhancement], *, progress: Progress | None = None
) -> Tensor:
    """Mean KL per token of each prompt's answer under some enhancements, [plans, rows]."""
    candidates = [Candidate("damage", plan) for plan in plans]
    scores = score(model, answered_items(model, rows), candidates, progress=progress).candidates
    return torch.stack([prompt_kl(each) for each in scores])


def _measure(
    model: Model,
    material: Material,
    aims: Sequence[Aim],
    candidates: Sequence[Candidate],
    half: int,
    progress: Progress | None,
) -> list[Point]:
    sets: list[list[Item]] = [answered_items(model, rows[half]) for rows in (material.general, material.special)]
    sets += [_items(model, aim, half) for aim in aims]
    sizes = [len(items) for items in sets]
    scores = score(model, [item for items in sets for item in items], candidates, progress=progress)
    base = _parts(scores.base, sizes)
    return [_point(aims, base, _parts(rows, sizes), half) for rows in scores.candidates]


def chosen_alone(aim: Aim, half: int) -> bool:
    """Whether only the good answers are scored: of references on the tuning half, where nothing else counts."""
    return aim.kind == "references" and half == 0


def _items(model: Model, aim: Aim, half: int) -> list[Item]:
    items = pair_items(model, (aim.pairs.tune, aim.pairs.report)[half])
    return items[: len(items) // 2] if chosen_alone(aim, half) else items


def _changes(base: Sequence[TokenScores], scores: Sequence[TokenScores], *, alone: bool) -> tuple[Tensor, Tensor]:
    """Change of each pair's chosen and rejected answer; none for the rejected ones (zero) where they were left out."""
    if not alone:
        return pair_changes(base, scores)
    chosen, _ = pair_changes([*base, *base], [*scores, *base])
    return chosen, torch.zeros_like(chosen)


def weighted_rows(aims: Sequence[Aim], gains: Sequence[Tensor]) -> Tensor:
    """Every pair's part in the weighted sum of the aims' means, so that the mean over all pairs is that sum."""
    total = sum(len(gain) for gain in gains)
    parts = [aim.weight * total / len(gain) * gain for aim, gain in zip(aims, gains, strict=True)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def _parts(rows: Sequence[TokenScores], sizes: Sequence[int]) -> list[Sequence[TokenScores]]:
    parts, start = [], 0
    for size in sizes:
        parts.append(rows[start : start + size])
        start += size
    return parts


def _point(
    aims: Sequence[Aim], base: list[Sequence[TokenScores]], scores: list[Sequence[TokenScores]], half: int
) -> Point:
    changes = [
        _changes(b, s, alone=chosen_alone(aim, half)) for b, s, aim in zip(base[2:], scores[2:], aims, strict=True)
    ]
    gains = [counted(aim.kind, *change) for aim, change in zip(aims, changes, strict=True)]
    return Point(
        rows=weighted_rows(aims, gains),
        changes=tuple(changes),
        tokens=tuple(sum(len(s.kl) for s in rows) for rows in scores[2:]),
        effect=sum(aim.weight * float(gain.mean()) for aim, gain in zip(aims, gains, strict=True)),
        likelihood=tuple(float(chosen.mean()) for chosen, _ in changes),
        shift=tuple(
            None if chosen_alone(aim, half) else float((chosen - rejected).mean())
            for aim, (chosen, rejected) in zip(aims, changes, strict=True)
        ),
        kl=float(prompt_kl(scores[0]).mean()),
        kl_p95=float(torch.cat([s.kl for s in scores[0]]).quantile(0.95)),
        special_kl=float(prompt_kl(scores[1]).mean()),
    )
