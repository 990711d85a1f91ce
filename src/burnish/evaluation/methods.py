"""The alternatives that an enhancement is compared with, each at any strength."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from burnish.artifacts.direction import Direction, Enhancement
from burnish.artifacts.lora import LoraAdapter
from burnish.finding import find_direction
from burnish.maths.statistics import unit
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Item, Progress, score
from burnish.options import EvaluateOptions, FindOptions, Scope
from burnish.prompts.domains import Domain, GeneralSet, load_protect

UPPER_HALF = "50%.."
CLOSE = 0.04  # relative distance to the budget at which the search for a scale ends
ROUNDS = 6


@dataclass(frozen=True)
class Method:
    """A way to change the model whose strength is one number."""

    name: str
    at: Callable[[float], Candidate]
    start: float = 0.5  # a first guess of the scale
    null: bool = False  # a random direction


def methods(
    model: Model,
    domain: Domain,
    general: GeneralSet,
    options: EvaluateOptions,
    *,
    enhancement: Enhancement | None = None,
    adapters: Sequence[LoraAdapter] = (),
    progress: Progress | None = None,
) -> list[Method]:
    """The user's own, the published setting, directions by layer, window, site and protection, steering, and random ones."""

    def found(**how: object) -> Direction:
        return find_direction(
            model,
            enhance=domain.enhance,
            normal=general.prompts,
            options=FindOptions(seed=options.seed, **how),  # type: ignore[arg-type]
            held_out=(domain.held_out, general.held_out),
            protect=load_protect(),
            progress=progress,
        )

    residual, attention, spared = found(), found(site="attention"), found(site="attention", protect=True)
    listed = [
        _of("published: one direction, all layers", residual),
        _of("one direction, upper half", residual, layers=UPPER_HALF),
        _of("a direction a layer, all layers", residual, "per-layer"),
        _of("a direction a layer, upper half", residual, "per-layer", UPPER_HALF),
        _of("attention's writes, all layers", attention, "per-layer"),
        _of("attention's writes, protected, all layers", spared, "per-layer"),
        _of("attention's writes, protected, upper half", spared, "per-layer", UPPER_HALF),
        _steering(residual),
    ]
    for number in range(options.random_directions):
        listed.append(random_method(residual, options.seed + number))
    given = [_adapter(adapter) for adapter in adapters]
    if enhancement is not None:
        own = enhancement
        given.insert(0, Method("the given enhancement, scaled", lambda s: Candidate("given", own.scaled(s)), 1.0))
    return [*given, *listed]


def _of(name: str, direction: Direction, scope: Scope = "single", layers: str = "all") -> Method:
    used = replace(direction, scope=scope)
    return Method(name, lambda s: Candidate(name, used.enhancement(s, layers=layers)))


def _steering(direction: Direction) -> Method:
    """A control vector: a multiple of the direction added to the output of its layer."""
    vectors = torch.zeros_like(direction.vectors)
    vectors[direction.layer] = direction.vectors[direction.layer]
    name = "additive steering at one layer"
    return Method(name, lambda s: Candidate(name, steering=vectors * s), 5.0)


def _adapter(adapter: LoraAdapter) -> Method:
    name = f"adapter {adapter.name}, scaled"
    return Method(name, lambda s: Candidate(name, adapter=adapter, adapter_scale=s), 1.0)


def random_method(direction: Direction, seed: int) -> Method:
    """Random directions, one a layer, all layers: what any edit of this kind does."""
    generator = torch.Generator().manual_seed(1_000_003 + seed)
    vectors = unit(torch.randn(direction.vectors.shape, generator=generator))
    used = replace(direction, vectors=vectors, scope="per-layer")
    name = f"random directions {seed}"
    return Method(name, lambda s: Candidate(name, used.enhancement(s)), 1.5, null=True)


@dataclass(frozen=True)
class Scaled:
    """A method at the scale whose measured damage is the budget."""

    method: Method
    scale: float
    kl: float  # on the tuning half, nats per token
    evaluations: int

    @property
    def candidate(self) -> Candidate:
        return self.method.at(self.scale)


def at_equal_damage(
    model: Model, items: Sequence[Item], listed: Sequence[Method], budget: float, *, progress: Progress | None = None
) -> list[Scaled]:
    """Finds each method's scale by root finding on log KL against log scale; all methods of a round share a pass.

    KL grows as the square of the scale near zero, which gives the second guess from the first. items: the tuning half.
    """
    tried: list[list[tuple[float, float]]] = [[] for _ in listed]
    scales = [m.start for m in listed]
    for _ in range(ROUNDS):
        open_ = [i for i, points in enumerate(tried) if not points or abs(points[-1][1] / budget - 1) > CLOSE]
        if not open_:
            break
        found = score(model, items, [listed[i].at(scales[i]) for i in open_], progress=progress)
        for i, scores in zip(open_, found.candidates, strict=True):
            kl = float(torch.cat([s.kl for s in scores]).mean())
            tried[i].append((scales[i], max(kl, 1e-12)))
            scales[i] = _next_scale(tried[i], budget)
    best = [min(points, key=lambda point: abs(torch.log(torch.tensor(point[1] / budget)))) for points in tried]
    return [
        Scaled(method, scale, kl, len(points)) for method, (scale, kl), points in zip(listed, best, tried, strict=True)
    ]


def _next_scale(points: list[tuple[float, float]], budget: float) -> float:
    """The scale at which log KL, straight between the two points nearest to the budget, reaches it."""
    scale, kl = points[-1]
    slope = 2.0
    if len(points) > 1:
        one, two = sorted(points, key=lambda p: abs(_log(p[1] / budget)))[:2]
        if one[0] != two[0] and one[1] != two[1]:
            slope = max(0.5, _log(one[1] / two[1]) / _log(one[0] / two[0]))
        scale, kl = one
    return scale * float(torch.tensor(budget / kl).pow(1 / slope).clamp(1 / 8, 8))


def _log(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float64).log())
