"""From a profile to an enhancement: doses along each named direction, then scaled into the person's budget of damage.

A gain multiplies what a layer writes along a direction, so which way a positive gain leads depends on the sign of what stands
there already. The gain of a layer is therefore the one that comes nearest, in least squares over everyday answers, to adding the dose
to every write: minimising E (a z - c s)^2 over a gives

    a = c s E[z] / E[z^2]

with z the coordinate of a write along the direction, s its standard deviation and c the coefficient. A coefficient of 1 so asks
every layer for one standard deviation of what it writes on everyday answers. Where a layer's writes scatter around zero the gain is
small: multiplying them would not lead anywhere. With equal gains in all layers, some layers would push against the dose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from burnish.artifacts.direction import Direction, Enhancement
from burnish.errors import InputError
from burnish.evaluation.material import answered_items, damage_prompts, greedy_answers
from burnish.maths.direction import without
from burnish.model.model import Model
from burnish.model.scoring import Candidate, score
from burnish.naming import named_directions
from burnish.options import EvaluateOptions
from burnish.personal.features import Progress, answer_means, everyday_answers
from burnish.personal.profile import Profile
from burnish.prompts.domains import load_general
from burnish.tuning.material import template

RESERVE = 0.9  # of the budget: prompts that were not measured move a little more than those that were
MEASURED = EvaluateOptions(prompts=32, tokens=32)


def dose_gains(writes: Tensor, vectors: Tensor, coefficients: Tensor) -> Tensor:
    """Gains [layers, k] whose edit comes nearest to adding `coefficients` standard deviations to every write.

    writes: [n, layers, hidden], what attention writes on n answers; vectors: [layers, k, hidden] of unit length; coefficients: [k].
    A gain below -1 would turn a component around and is cut there.
    """
    inverse = torch.linalg.pinv(vectors.double().transpose(1, 2))  # [layers, k, hidden]
    along = torch.einsum("nlh,lkh->nlk", writes.double(), inverse)
    gains = coefficients.double() * along.std(0) * along.mean(0) / along.square().mean(0).clamp_min(1e-30)
    return gains.float().clamp_min(-1)


def editing_directions(model: Model, names: Sequence[str], progress: Progress | None = None) -> dict[str, Direction]:
    """The directions along which a profile edits: what attention writes, without what general and protect prompts write."""
    return named_directions(model, names, site="attention", protect=True, progress=progress)


def plan_of(
    model: Model,
    profile: Profile,
    directions: Mapping[str, Direction],
    *,
    style: Direction | None = None,
    progress: Progress | None = None,
) -> Enhancement:
    """The doses, not yet scaled into the budget.

    directions: `editing_directions` of `profile.active`, or more; style: the direction of the person's own writing, of which what the names leave over is used.
    Raises InputError when there is nothing to strengthen, or for a name without a direction.
    """
    missing = [name for name in profile.active if name not in directions]
    if missing:
        raise InputError(
            f"The directions of {', '.join(missing)} are missing. Pass `editing_directions(model, profile.active)`."
        )
    used = list(directions.values())
    values = [profile.coefficients[name].mean if name in profile.active else 0.0 for name in directions]
    if style is not None and profile.written is not None and profile.written.residual_weight:
        used.append(residual_of(style, used))
        values.append(profile.written.residual_weight)
    if not used:
        raise InputError(
            f"The profile '{profile.name}' says nothing yet, so there is no enhancement. Set a slider, or give it choices or writing."
        )
    plan = template(used)
    plan.require(model.fingerprint, model.anatomy.layers, model.anatomy.hidden_size)
    writes = answer_means(
        model, everyday_answers(model, profile.language, progress), site="attention", progress=progress
    )
    return replace(plan, gains=dose_gains(writes, plan.vectors, torch.tensor(values)))


def residual_of(style: Direction, named: Sequence[Direction]) -> Direction:
    """What the names leave of a style, in every layer."""
    if not named:
        return style
    return replace(style, vectors=without(style.vectors, torch.stack([d.used() for d in named], 1)).float())


def scales_within(
    model: Model, plans: Sequence[Enhancement], budget: float, language: str, progress: Progress | None = None
) -> list[float]:
    """The largest scale up to 1 (to within a tenth of the budget) at which each plan's mean KL on everyday prompts keeps the budget.

    Measured on held-out everyday and protect prompts, in nats per token, all plans in one pass a round.
    """
    prompts = damage_prompts(load_general(language), MEASURED)[0]
    items = answered_items(model, greedy_answers(model, prompts, MEASURED, progress))
    scales, waiting = [1.0] * len(plans), [i for i, plan in enumerate(plans) if plan.edited_layers()]
    while waiting:
        found = score(model, items, [Candidate("damage", plans[i].scaled(scales[i])) for i in waiting])
        damages = [float(torch.stack([s.kl.mean() for s in rows]).mean()) for rows in found.candidates]
        over = [(i, damage) for i, damage in zip(waiting, damages, strict=True) if damage > budget]
        for i, damage in over:
            scales[i] *= min(0.95, (RESERVE * budget / damage) ** 0.5)  # KL grows as the square of the scale near zero
        waiting = [i for i, _ in over]
    return scales


def fitted(
    model: Model,
    profile: Profile,
    directions: Mapping[str, Direction],
    *,
    style: Direction | None = None,
    progress: Progress | None = None,
) -> Profile:
    """The profile with its scale on this model: measured once, then kept with it. Raises as `plan_of`."""
    if model.fingerprint in profile.scales:
        return profile
    plan = plan_of(model, profile, directions, style=style, progress=progress)
    (scale,) = scales_within(model, [plan], profile.budget, profile.language, progress)
    return replace(profile, scales={**profile.scales, model.fingerprint: scale})


def enhancement_of(
    model: Model,
    profile: Profile,
    directions: Mapping[str, Direction],
    *,
    style: Direction | None = None,
    progress: Progress | None = None,
) -> Enhancement:
    """The profile as an enhancement of this model, within its budget on everyday prompts. Arguments and errors as of `plan_of`."""
    known = fitted(model, profile, directions, style=style, progress=progress)
    plan = plan_of(model, profile, directions, style=style, progress=progress)
    return plan.scaled(known.scales[model.fingerprint])
