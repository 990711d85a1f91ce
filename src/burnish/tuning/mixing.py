"""Several specialities at once: how alike their directions are, joining those that are, and who disturbs whom."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from burnish.artifacts.direction import Enhancement
from burnish.evaluation.effect import pair_changes
from burnish.evaluation.pairs import pair_items
from burnish.maths.statistics import unit
from burnish.model.model import Model
from burnish.model.scoring import Candidate, score
from burnish.steps import Progress
from burnish.tuning.objective import Material

TOO_ALIKE = 0.9  # mean cosine over the layers from which two directions are reported
TOGETHER = "together"


@dataclass(frozen=True)
class Alike:
    """Two directions that point nearly the same way: gains on their difference act on little."""

    first: int
    second: int
    cosine: float  # mean absolute cosine over the layers
    effective_rank: float  # of all directions, mean over the layers


def alike(plan: Enhancement) -> tuple[Alike, ...]:
    """Pairs of directions whose mean absolute cosine is above 0.9. The edit itself gives each its own gain (pseudo-inverse),
    in any order; it is the gains that mean little then."""
    layers, k = plan.gains.shape
    gram = torch.stack([plan.gram(layer).abs() for layer in range(layers)]).mean(0)
    rank = sum(plan.effective_rank(layer) for layer in range(layers)) / layers
    return tuple(
        Alike(i, j, float(gram[i, j]), rank) for i in range(k) for j in range(i + 1, k) if gram[i, j] > TOO_ALIKE
    )


def merged(plan: Enhancement, owners: Sequence[str], cosine: float) -> tuple[Enhancement, list[str]]:
    """Directions whose mean cosine is above `cosine` joined into their mean; the gains are zero as before."""
    layers, k = plan.gains.shape
    gram = torch.stack([plan.gram(layer) for layer in range(layers)]).mean(0)
    groups: list[list[int]] = []
    for i in range(k):
        home = next((g for g in groups if all(gram[i, j] > cosine for j in g)), None)
        if home is None:
            groups.append([i])
        else:
            home.append(i)
    vectors = torch.stack([unit(plan.vectors[:, g].mean(1)) for g in groups], 1)
    joined = replace(
        plan,
        vectors=vectors.contiguous(),
        gains=torch.zeros(layers, len(groups)),
        directions=tuple(plan.directions[g[0]] for g in groups),
    )
    return joined, [" + ".join(dict.fromkeys(owners[i] for i in g)) for g in groups]


def interference(
    model: Model,
    chosen: Enhancement,
    owners: Sequence[str],
    material: Material,
    *,
    progress: Progress | None = None,
) -> dict[str, dict[str, float]]:
    """Likelihood of each aim's good answers, report half, under the gains of one owner alone and under all together."""
    names = list(dict.fromkeys(owners))
    plans = []
    for name in names:
        mask = torch.tensor([owner == name for owner in owners])
        plans.append(replace(chosen, gains=chosen.gains * mask))
    candidates = [Candidate(name, plan) for name, plan in zip(names, plans, strict=True)]
    candidates.append(Candidate(TOGETHER, chosen))
    table: dict[str, dict[str, float]] = {c.name: {} for c in candidates}
    for aim in material.aims:
        scores = score(model, pair_items(model, aim.pairs.report), candidates, progress=progress)
        for candidate, rows in zip(candidates, scores.candidates, strict=True):
            likely = float(pair_changes(scores.base, rows)[0].mean())
            table[candidate.name][f"{aim.name}: {aim.kind}"] = likely
    return table
