"""Is it better than the alternatives at the same cost? Every method at equal damage, judged on the half not used for that."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from burnish.artifacts.direction import Enhancement
from burnish.artifacts.lora import LoraAdapter
from burnish.evaluation.effect import Effect, Verdict, effect_of, shifts, ships, word_of
from burnish.evaluation.methods import Scaled, at_equal_damage, methods
from burnish.evaluation.pairs import (
    Answered,
    Halves,
    PairKind,
    answered_items,
    damage_prompts,
    greedy_answers,
    made_pairs,
    pair_items,
    reference_pairs,
)
from burnish.maths.intervals import Interval, holm, interval_above
from burnish.model.divergence import divergence
from burnish.model.model import Model
from burnish.model.row_edits import check_adapter
from burnish.model.scoring import Scores, score, score_prompts
from burnish.options import EvaluateOptions
from burnish.prompts.domains import Domain, load_general
from burnish.steps import Progress

SIGNIFICANT = 0.05
DOSES = (0.25, 0.5, 1.0, 1.5, 2.0)
SYSTEM_PROMPT = "expert system prompt"


@dataclass(frozen=True)
class Row:
    """A method at the budget. Effects are those of the report half."""

    method: str
    scale: float | None
    kl: Interval  # on the report half's general and protect prompts
    effects: dict[PairKind, Effect]
    verdicts: dict[PairKind, Verdict]
    null: bool


@dataclass(frozen=True)
class Dose:
    """One strength of one enhancement."""

    scale: float
    kl: float
    effects: dict[PairKind, Effect]
    ships: bool  # within the budget, and on every kind of pairs an effect above random and no falling likelihood


@dataclass(frozen=True)
class Comparison:
    """The table, the null and the dose curve of the first method.

    Half of the random directions say what any edit of this damage shifts; the others, measured against them, are the null.
    """

    domain: str
    model: str
    dtype: str
    budget: float
    seed: int
    rows: tuple[Row, ...]
    null: dict[PairKind, Interval]  # of the shift above random, of other random directions
    doses: tuple[Dose, ...]
    dose_method: str
    prompts: int
    tokens: int
    seconds: float


def compare(
    model: Model,
    domain: Domain,
    options: EvaluateOptions,
    *,
    enhancement: Enhancement | None = None,
    adapters: Sequence[LoraAdapter] = (),
    progress: Progress | None = None,
) -> Comparison:
    """Scales every method to the budget on the tuning half and reports effect and damage on the other half.

    Intervals are paired by prompt; p-values are Holm-adjusted over the methods of a kind of pairs.

    Args:
        model: the base model; its weights are not changed.
        domain: what the effect is measured on.
        options: budget in nats per token, sizes, seed.
        enhancement: a further row.
        adapters: LoRA adapters as further rows.
        progress: told of every part that takes long.

    Returns:
        A row a method.

    Raises:
        WrongModelError: the enhancement or an adapter is of another model.
    """
    started = time.perf_counter()
    for adapter in adapters:
        check_adapter(model, adapter)
    general = load_general(domain.language)
    tune, report = (greedy_answers(model, half, options, progress) for half in damage_prompts(general, options))
    pairs = [reference_pairs(model, domain, options, progress), made_pairs(model, domain, options, progress)]
    listed = methods(model, domain, options, enhancement=enhancement, adapters=adapters, progress=progress)
    scaled = at_equal_damage(model, answered_items(model, tune), listed, options.budget, progress=progress)
    candidates = [s.candidate for s in scaled]
    damage = score(model, answered_items(model, report), candidates, progress=progress)
    scores_by_kind = {p.kind: score(model, pair_items(model, p.report), candidates, progress=progress) for p in pairs}
    randoms = [i for i, s in enumerate(scaled) if s.method.null]
    calibrating, tested = randoms[::2], randoms[1::2]
    drifts = {kind: shifts(scores, calibrating) for kind, scores in scores_by_kind.items()}
    rows = [
        Row(
            s.method.name,
            s.scale,
            _kl(damage, i, options),
            _effects(scores_by_kind, i, drifts, options),
            {},
            s.method.null,
        )
        for i, s in enumerate(scaled)
        if i not in calibrating
    ]
    rows.append(_system_row(model, domain, report, pairs, drifts, options))
    rows = with_verdicts(rows)
    null = {
        kind: interval_above(shifts(scores, tested), drifts[kind], seed=options.seed)
        for kind, scores in scores_by_kind.items()
    }
    chosen = next(i for i, s in enumerate(scaled) if not s.method.null)
    return Comparison(
        domain=domain.name,
        model=model.name,
        dtype=str(model.network.dtype).removeprefix("torch."),
        budget=options.budget,
        seed=options.seed,
        rows=tuple(rows),
        null=null,
        doses=dose_curve(
            model, scaled[chosen], report, pairs, [scaled[i] for i in calibrating], options, progress=progress
        ),
        dose_method=scaled[chosen].method.name,
        prompts=len(report),
        tokens=sum(len(i.answer) for i in report),
        seconds=time.perf_counter() - started,
    )


def dose_curve(
    model: Model,
    scaled: Scaled,
    rows: Sequence[Answered],
    pairs: Sequence[Halves],
    randoms: Sequence[Scaled],
    options: EvaluateOptions,
    *,
    progress: Progress | None = None,
) -> tuple[Dose, ...]:
    """Effect and damage at multiples of the scale at the budget. randoms: at every dose they are measured too, at the scale
    that gives them its damage (KL grows as the square of the scale)."""
    candidates = [scaled.method.at(scaled.scale * d) for d in DOSES]
    damage = score(model, answered_items(model, rows), candidates, progress=progress)
    kl = [_kl(damage, i, options).mean for i in range(len(DOSES))]
    at_budget = max(kl[DOSES.index(1.0)], 1e-12)
    matched = [r.method.at(r.scale * (k / at_budget) ** 0.5) for k in kl for r in randoms]
    scores_by_kind = {
        p.kind: score(model, pair_items(model, p.report), candidates + matched, progress=progress) for p in pairs
    }
    doses = []
    for i, multiple in enumerate(DOSES):
        first = len(DOSES) + i * len(randoms)
        drifts = {kind: shifts(scores, range(first, first + len(randoms))) for kind, scores in scores_by_kind.items()}
        effects = _effects(scores_by_kind, i, drifts, options)
        gains = ((e.above.low, e.likelihood.high) for e in effects.values())
        doses.append(Dose(scaled.scale * multiple, kl[i], effects, ships(kl[i] / options.budget, gains)))
    return tuple(doses)


def with_verdicts(rows: Sequence[Row]) -> list[Row]:
    """Each effect as a word: none unless it is beyond chance and beyond every random direction."""
    kinds = list(rows[0].effects)
    verdicts: list[dict[PairKind, Verdict]] = [{} for _ in rows]
    for kind in kinds:
        adjusted = holm([row.effects[kind].above.p for row in rows])
        band = max((abs(row.effects[kind].above.mean) for row in rows if row.null), default=0.0)
        for verdict, row, p in zip(verdicts, rows, adjusted, strict=True):
            effect = row.effects[kind]
            verdict[kind] = word_of(effect, sure=p < SIGNIFICANT and abs(effect.above.mean) > band)
    return [replace(row, verdicts=verdict) for row, verdict in zip(rows, verdicts, strict=True)]


def _kl(scores: Scores, candidate: int, options: EvaluateOptions) -> Interval:
    return divergence(scores.candidates[candidate], seed=options.seed).kl


def _effects(
    scores_by_kind: dict[PairKind, Scores], candidate: int, drifts: dict[PairKind, Tensor], options: EvaluateOptions
) -> dict[PairKind, Effect]:
    return {
        kind: effect_of(scores.base, scores.candidates[candidate], kind, drifts[kind], seed=options.seed)
        for kind, scores in scores_by_kind.items()
    }


def _system_row(
    model: Model,
    domain: Domain,
    rows: Sequence[Answered],
    pairs: Sequence[Halves],
    drifts: dict[PairKind, Tensor],
    options: EvaluateOptions,
) -> Row:
    """The expert system prompt with its own damage: it changes what the model reads, at no scale."""
    expert = domain.expert_system_prompt
    scores_by_kind = {
        p.kind: score_prompts(model, pair_items(model, p.report), pair_items(model, p.report, expert)) for p in pairs
    }
    kl = _kl(score_prompts(model, answered_items(model, rows), answered_items(model, rows, expert)), 0, options)
    return Row(SYSTEM_PROMPT, None, kl, _effects(scores_by_kind, 0, drifts, options), {}, False)
