"""From a profile to an enhancement: doses along each named direction, then scaled into the person's budget of damage.

A gain multiplies what a layer writes along a direction, so which way a positive gain leads depends on the sign of what
stands there already. The gain of a layer is therefore the one that comes nearest, in least squares over everyday
answers, to adding the dose to each answer's mean write: minimising E (a z - c s)^2 over a gives

    a = c s E[z] / E[z^2]

with z the coordinate of an answer's mean write along the direction, s its standard deviation over the answers and c the
coefficient. A coefficient of 1 so asks every layer for one standard deviation of what it writes on everyday answers.
Where a layer's writes scatter around zero the gain is small: multiplying them would not lead anywhere. With equal gains
in all layers, some layers would push against the dose.

The budget is a promise about measured damage: the mean KL divergence on each half of the packaged everyday and protect
prompts, over the base model's own answers to them. On prompts that nobody measured it is an expectation, not a bound.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from burnish.artifacts.direction import Direction, Enhancement
from burnish.catalogue import named_directions
from burnish.errors import InputError
from burnish.evaluation.pairs import answered_items, damage_prompts, greedy_answers
from burnish.maths.strength import Search
from burnish.model.divergence import prompt_kl
from burnish.model.model import Model
from burnish.model.scoring import Candidate, score
from burnish.options import EvaluateOptions
from burnish.personal.features import answer_means, everyday_answers
from burnish.personal.profile import Profile, Scale
from burnish.prompts.domains import load_general
from burnish.steps import Progress, Steps

MEASURED = EvaluateOptions(prompts=32, tokens=32)
PIECE = 8  # prompts measured at a time


def dose_gains(writes: Tensor, vectors: Tensor, coefficients: Tensor) -> Tensor:
    """Gains [layers, k] whose edit comes nearest to adding `coefficients` standard deviations to each answer's mean
    write.

    writes: [n, layers, hidden], the mean of what attention writes over each of n answers; vectors: [layers, k, hidden]
    of unit length; coefficients: [k]. A gain below -1 would turn a component around and is cut there.
    """
    inverse = torch.linalg.pinv(vectors.double().transpose(1, 2))  # [layers, k, hidden]
    along = torch.einsum("nlh,lkh->nlk", writes.double(), inverse)
    gains = coefficients.double() * along.std(0) * along.mean(0) / along.square().mean(0).clamp_min(1e-30)
    return gains.float().clamp_min(-1)


def editing_directions(model: Model, names: Sequence[str], progress: Progress | None = None) -> dict[str, Direction]:
    """The directions along which a profile edits: what attention writes, without that of general and protect prompts."""
    return named_directions(model, names, site="attention", protect=True, progress=progress)


def everyday_writes(model: Model, language: str, progress: Progress | None = None) -> Tensor:
    """What attention writes on the base model's own everyday answers, mean over each, [n, layers, hidden]."""
    return answer_means(model, everyday_answers(model, language, progress), site="attention", progress=progress)


def plan_of(
    model: Model,
    profile: Profile,
    directions: Mapping[str, Direction],
    *,
    writes: Tensor | None = None,
    progress: Progress | None = None,
) -> Enhancement:
    """The doses, not yet scaled into the budget.

    directions: `editing_directions` of `profile.active`, or more, of which only those are used; writes: `everyday_writes`, where several plans are made. Raises
    InputError when there is nothing to strengthen, or for a name without a direction, WrongModelError for another
    model's direction.
    """
    missing = [name for name in profile.active if name not in directions]
    if missing:
        raise InputError(
            f"The directions of {', '.join(missing)} are missing. Pass `editing_directions(model, profile.active)`."
        )
    used = [directions[name] for name in profile.active]
    values = [profile.coefficients[name].mean for name in profile.active]
    if not used:
        raise InputError(
            f"The profile '{profile.name}' says nothing yet, so there is no enhancement. Set a slider, or give it choices."
        )
    for direction in used:
        Enhancement.of([direction]).require(model.fingerprint, model.anatomy.layers, model.anatomy.hidden_size)
    plan = Enhancement.of(used)
    if writes is None:
        writes = everyday_writes(model, profile.language, progress)
    return replace(plan, gains=dose_gains(writes, plan.vectors, torch.tensor(values)))


def scaling(
    model: Model, plans: Sequence[Enhancement], budget: float, language: str, progress: Progress | None = None
) -> Steps[list[float]]:
    """A scale up to 1 for each plan at which its mean KL on everyday prompts keeps the budget, in nats per token.

    Measured on held-out everyday and protect prompts, all plans in one pass a round; the mean of either half of them
    keeps the budget. In steps, so that a server can answer in between. Raises ModelError where the model's numbers overflow.
    """
    halves = [greedy_answers(model, p, MEASURED, progress) for p in damage_prompts(load_general(language), MEASURED)]
    items, first = answered_items(model, [row for half in halves for row in half]), len(halves[0])
    search = Search([1.0] * len(plans), most=1.0)
    while search.asked:
        candidates = [Candidate("damage", plans[i].scaled(scale)) for i, scale in search.asked.items()]
        moved: list[list[Tensor]] = [[] for _ in candidates]
        for start in range(0, len(items), PIECE):
            yield
            scores = score(model, items[start : start + PIECE], candidates).candidates
            if progress is not None:
                progress("measuring damage", min(start + PIECE, len(items)), len(items))
            for rows, each in zip(moved, scores, strict=True):
                rows.append(prompt_kl(each))
        kls = [torch.cat(rows) for rows in moved]
        search.tell([float(max(kl[:first].mean(), kl[first:].mean())) / budget for kl in kls])
    return search.strengths


def fitting(model: Model, profile: Profile, plan: Enhancement, progress: Progress | None = None) -> Steps[Profile]:
    """The profile with the scale of its plan (`plan_of`) on this model: measured once, in steps, then kept with it.

    A scale that was measured for another plan or budget is measured anew: the directions may have changed since.
    """
    gains, vectors = (t.contiguous().numpy().tobytes() for t in (plan.gains, plan.vectors))
    digest = hashlib.sha256(repr(profile.budget).encode() + gains + vectors).hexdigest()[:16]
    known = profile.scales.get(model.fingerprint)
    if known is not None and known.plan == digest:
        return profile
    (scale,) = yield from scaling(model, [plan], profile.budget, profile.language, progress)
    return replace(profile, scales={**profile.scales, model.fingerprint: Scale(scale, digest)})
