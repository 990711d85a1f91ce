"""Gains from derivatives: a step within a trust region, its scale by measured damage, and again while it pays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from burnish.artifacts.direction import Enhancement
from burnish.evaluation.pairs import answered_items, pair_items
from burnish.layers import layer_window
from burnish.maths.strength import Search
from burnish.maths.trust_region import best_gains, choose_ridge, depth_basis, information
from burnish.model.derivatives import Derivatives, derivatives
from burnish.model.model import Model
from burnish.model.scoring import Candidate
from burnish.options import TuneOptions
from burnish.steps import Progress
from burnish.tuning.objective import Aim, Material, Point, damage_of, measure

SKETCHES = 4  # rows of the information for each prompt to leave alone
CURVATURE_SKETCHES = 2  # and for each answer aimed at
PARTS = (0.7, 0.4)  # of the scale at the budget, tried where the budget itself makes good answers less likely
PAYS = 1.03  # a further step is kept when it multiplies the effect by this


@dataclass(frozen=True)
class Tried:
    """Gains and what they measure on the tuning half."""

    enhancement: Enhancement
    point: Point


@dataclass(frozen=True)
class ClosedForm:
    """The tried gains, best last, those of the random directions at the budget, and how they were found."""

    tried: tuple[Tried, ...]
    best: Tried | None  # None when nothing pulls within the bounds
    first: Tried | None  # the first step at the budget: what the null is compared with
    null: tuple[Point, ...]
    ridge: float
    predicted: dict[float, float]  # effect on held-out rows, by ridge
    steps: int


@dataclass(frozen=True)
class _Local:
    """Derivatives of one set of directions in its free numbers."""

    rows: list[Tensor]  # gradients of each aim's answers, [n_i, n]
    weights: list[float]
    curvature: Tensor  # [n, n]
    damage: tuple[Tensor, Tensor]  # two independent estimates, in budgets

    @property
    def gradient(self) -> Tensor:
        return torch.stack([w * r.mean(0) for r, w in zip(self.rows, self.weights, strict=True)]).sum(0)


def closed_form(
    model: Model,
    plan: Enhancement,
    nulls: Sequence[Enhancement],
    material: Material,
    options: TuneOptions,
    *,
    progress: Progress | None = None,
) -> ClosedForm:
    """plan: the directions (its gains are not used); nulls: random ones, tuned in the same way for one step.

    Source: trust-region Newton step in the metric of the Fisher information (natural gradient, Amari 1998).
    """
    layers, k = plan.gains.shape
    basis = depth_basis(layers, k, layer_window(options.window, layers), options.shape)
    everyone = [plan, *nulls]
    local = _locals(model, everyone, basis, material, options, progress)
    ridge, predicted = choose_ridge(local[0].rows, local[0].weights, local[0].curvature, local[0].damage)

    def solved(here: _Local, start: Tensor) -> Tensor:
        pull = here.gradient + here.curvature @ start
        damage = (here.damage[0] + here.damage[1]) / 2
        return best_gains(pull, here.curvature, damage, ridge=ridge, non_negative=options.shape == "non-negative")

    zero = torch.zeros(basis.shape[1], dtype=torch.float64)
    plans = [with_gains(p, basis @ solved(here, zero)) for p, here in zip(everyone, local, strict=True)]
    plans = at_budget(model, plans, material, options, progress)
    points = measure(model, material, [_candidate(p) for p in plans], progress=progress)
    first, steps = Tried(plans[0], points[0]), 1
    tried = [first, *_weaker(model, first, material, options, progress)]
    best = best_of(tried, material, options)
    while best is not None and steps < options.steps:
        start = torch.linalg.lstsq(basis, best.enhancement.gains.double().flatten()[:, None]).solution[:, 0]
        rows = _gradients(model, best.enhancement, basis, material.aims, progress)
        again = with_gains(plan, basis @ solved(replace(local[0], rows=rows), start))
        again = at_budget(model, [again], material, options, progress)[0]
        more = [Tried(again, measure(model, material, [_candidate(again)], progress=progress)[0])]
        more += _weaker(model, more[0], material, options, progress)
        tried += more
        steps += 1
        better = best_of(more, material, options)
        if better is None or better.point.effect < PAYS * best.point.effect:
            break
        best = better
    return ClosedForm(tuple(tried), best, first, tuple(points[1:]), ridge, predicted, steps)


def _weaker(
    model: Model, at: Tried, material: Material, options: TuneOptions, progress: Progress | None
) -> list[Tried]:
    """Smaller scales of gains that won their effect by making good answers less likely, or nothing where they did not."""
    if best_of([at], material, options) is not None:
        return []
    plans = [at.enhancement.scaled(part) for part in PARTS]
    points = measure(model, material, [_candidate(p) for p in plans], progress=progress)
    return [Tried(plan, point) for plan, point in zip(plans, points, strict=True)]


def with_gains(plan: Enhancement, gains: Tensor) -> Enhancement:
    """The plan with gains [layers * k]; a gain below -1 would turn a component around and is cut there."""
    return replace(plan, gains=gains.view(plan.gains.shape).float().clamp_min(-1))


def best_of(tried: Sequence[Tried], material: Material, options: TuneOptions) -> Tried | None:
    """The largest effect that ships."""
    fine = [t for t in tried if t.point.ships(material.aims, options)]
    return max(fine, key=lambda t: t.point.effect, default=None)


def at_budget(
    model: Model,
    plans: Sequence[Enhancement],
    material: Material,
    options: TuneOptions,
    progress: Progress | None = None,
) -> list[Enhancement]:
    """Each plan scaled until the tightest bound on measured damage is met."""
    search = Search([1.0] * len(plans))
    while search.asked:
        candidates = [_candidate(plans[i].scaled(scale)) for i, scale in search.asked.items()]
        search.tell([point.load(options) for point in damage_of(model, material, candidates, progress=progress)])
    return [plan.scaled(scale) for plan, scale in zip(plans, search.strengths, strict=True)]


def _candidate(plan: Enhancement) -> Candidate:
    return Candidate("tuned", plan)


def _locals(
    model: Model,
    plans: Sequence[Enhancement],
    basis: Tensor,
    material: Material,
    options: TuneOptions,
    progress: Progress | None,
) -> list[_Local]:
    """Derivatives at zero gains of every set of directions, all from the same passes."""
    vectors = torch.cat([p.vectors for p in plans], 1)
    groups = [p.gains.shape[1] for p in plans]
    none = torch.zeros(vectors.shape[:2])

    def read(items: list, sketches: int) -> Derivatives:  # type: ignore[type-arg]
        return derivatives(
            model, items, vectors, none, groups=groups, sketches=sketches, seed=options.seed, progress=progress
        )

    general = read(answered_items(model, material.general[0]), SKETCHES)
    special = read(answered_items(model, material.special[0]), SKETCHES)
    aimed = [read(_aimed(model, aim), CURVATURE_SKETCHES) for aim in material.aims]
    local, start = [], 0
    for size in groups:
        columns = slice(start, start + size)
        start += size

        def inside(rows: Tensor, columns: slice = columns) -> Tensor:
            return rows[..., columns].flatten(-2) @ basis

        estimates = [
            information(inside(general.sketches[half::2]), general.tokens[half::2]) / options.budget
            + information(inside(special.sketches[half::2]), special.tokens[half::2]) / options.movement
            for half in (0, 1)
        ]
        curvature = torch.zeros(basis.shape[1], basis.shape[1], dtype=torch.float64)
        for aim, derived in zip(material.aims, aimed, strict=True):
            n = len(aim.pairs.tune)
            curvature += abs(aim.weight) * information(inside(derived.sketches[:n]), derived.tokens[:n])
        rows = [_rows(aim, inside(d.gradient)) for aim, d in zip(material.aims, aimed, strict=True)]
        local.append(_Local(rows, [a.weight for a in material.aims], curvature, (estimates[0], estimates[1])))
    return local


def _gradients(
    model: Model, plan: Enhancement, basis: Tensor, aims: Sequence[Aim], progress: Progress | None
) -> list[Tensor]:
    return [
        _rows(
            aim,
            derivatives(model, _aimed(model, aim), plan.vectors, plan.gains, progress=progress).gradient.flatten(1)
            @ basis,
        )
        for aim in aims
    ]


def _aimed(model: Model, aim: Aim) -> list:  # type: ignore[type-arg]
    """The answers whose likelihood is differentiated: the chosen ones, and the rejected ones where they are the user's.

    Where the rejected answers are the base model's own samples, the gradient of their likelihood is zero in expectation (the
    score identity): it would add noise and nothing else.
    """
    items = pair_items(model, aim.pairs.tune)
    return items if aim.kind == "user" else items[: len(aim.pairs.tune)]


def _rows(aim: Aim, gradient: Tensor) -> Tensor:
    if aim.kind != "user":
        return gradient
    chosen, rejected = gradient.chunk(2)
    return chosen - rejected
