"""The alternatives that an enhancement is compared with, each at any strength."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from burnish.artifacts.direction import Direction, Enhancement
from burnish.artifacts.lora import LoraAdapter
from burnish.finding import found_direction
from burnish.maths.statistics import unit
from burnish.maths.strength import Search
from burnish.model.divergence import prompt_kl
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Item, score
from burnish.options import EvaluateOptions, FindOptions, Scope
from burnish.prompts.contrast import domain_contrast
from burnish.prompts.domains import Domain
from burnish.steps import Progress

UPPER_HALF = "50%.."


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
    options: EvaluateOptions,
    *,
    enhancement: Enhancement | None = None,
    adapters: Sequence[LoraAdapter] = (),
    progress: Progress | None = None,
) -> list[Method]:
    """The user's own, the published setting, directions by layer, window, site and protection, steering, and random ones."""

    def direction(**how: object) -> Direction:
        options_ = FindOptions(seed=options.seed, **how)  # type: ignore[arg-type]
        return found_direction(model, domain_contrast(domain), options_, progress)

    residual, attention, spared = direction(), direction(site="attention"), direction(site="attention", protect=True)
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
        given_enhancement = enhancement
        given.insert(
            0, Method("the given enhancement, scaled", lambda s: Candidate("given", given_enhancement.scaled(s)), 1.0)
        )
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

    @property
    def candidate(self) -> Candidate:
        return self.method.at(self.scale)


def at_equal_damage(
    model: Model, items: Sequence[Item], listed: Sequence[Method], budget: float, *, progress: Progress | None = None
) -> list[Scaled]:
    """Each method at the largest scale whose damage on items, the tuning half, is within the budget; all methods share a pass."""
    search = Search([method.start for method in listed])
    while search.asked:
        candidates = [listed[i].at(scale) for i, scale in search.asked.items()]
        scores = score(model, items, candidates, progress=progress).candidates
        search.tell([float(prompt_kl(each).mean()) / budget for each in scores])
    return [Scaled(method, scale) for method, scale in zip(listed, search.strengths, strict=True)]
