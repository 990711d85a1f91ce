"""The search as part of tuning: seeded with the closed form's answer, over what has no gradient."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch

from burnish.artifacts.direction import Enhancement
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Progress
from burnish.options import TuneOptions, layer_window
from burnish.prompts import PromptSet
from burnish.tuning.closed_form import Tried
from burnish.tuning.journal import Parameters
from burnish.tuning.material import Scorer
from burnish.tuning.objective import Material, measure
from burnish.tuning.search import SearchResult, SearchSpace, enhancement_of, evaluator, search

EVERYTHING = "all directions"


def search_gains(
    model: Model,
    plan: Enhancement,
    start: Enhancement | None,
    material: Material,
    options: TuneOptions,
    *,
    apart: bool = True,
    scorer: Scorer | None = None,
    progress: Progress | None = None,
) -> tuple[Tried | None, SearchResult]:
    """Searches dose, centre and width over depth, weights, and, `apart`, which of the directions are used. start: tried first.

    Raises InputError for a journal of another search.
    """
    window = torch.zeros(plan.gains.shape)
    window[list(layer_window(options.window, len(window)))] = 1
    choices = {EVERYTHING: replace(plan, gains=window)}
    if plan.rank > 1 and apart:
        choices |= {f"direction {i}": _only(plan, window, i) for i in range(plan.rank)}
    space = SearchSpace(choices, [] if start is None else [_first(start, choices)])
    prompts = PromptSet("scored", tuple(row.prompt for row in material.special[0]))
    measured = evaluator(model, material, options, scorer=scorer, scorer_prompts=prompts)
    found = search(
        space,
        measured,
        trials=options.trials,
        seed=options.seed,
        identity=_identity(model, plan, material, options, scored=scorer is not None),
        journal=options.journal,
        progress=progress,
    )
    if found.chosen is None:
        return None, found
    enhancement = enhancement_of(found.chosen.parameters, space)
    return Tried(enhancement, measure(model, material, [Candidate("found", enhancement)], progress=progress)[0]), found


def _first(start: Enhancement, choices: dict[str, Enhancement]) -> Parameters:
    return {**bump_of(start), **({"choice": EVERYTHING} if len(choices) > 1 else {})}


def bump_of(enhancement: Enhancement) -> Parameters:
    """The bump over depth nearest to some gains: dose, centre and width from their moments, weights from each direction's sum."""
    gains = enhancement.gains.double()
    layers, k = gains.shape
    strength = gains.abs().sum(1)
    depth = torch.arange(layers, dtype=torch.float64) / max(1, layers - 1)
    share = strength / strength.sum().clamp_min(1e-12)
    centre = float(share @ depth)
    width = float((share @ (depth - centre).square()).sqrt())
    found: dict[str, float | str] = {"dose": float(gains.abs().max()), "centre": centre, "width": width}
    if k > 1:
        sums = gains.sum(0)
        found |= {f"weight_{i}": float(sums[i] / sums.abs().max().clamp_min(1e-12)) for i in range(k)}
    return found


def _only(plan: Enhancement, window: torch.Tensor, number: int) -> Enhancement:
    return Enhancement(
        plan.vectors[:, number : number + 1].contiguous(), window[:, :1].clone(), (plan.directions[number],)
    )


def _identity(model: Model, plan: Enhancement, material: Material, options: TuneOptions, *, scored: bool) -> str:
    """A hash of everything that decides what a trial measures."""
    kept = {**asdict(replace(options, journal=None, trials=1)), "journal": None}
    answers = [[row.answer for row in rows[0]] for rows in (material.general, material.special)]
    aims = [(a.name, a.kind, a.weight, [(p.chosen, p.rejected) for p in a.pairs.tune]) for a in material.aims]
    vectors = hashlib.sha256(plan.vectors.contiguous().numpy().tobytes()).hexdigest()
    about: Sequence[object] = [model.fingerprint, str(model.network.dtype), vectors, kept, answers, aims, scored]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
