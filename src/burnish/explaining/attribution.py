"""Where the effect comes from: first order from one backward pass, and the real thing for what matters most."""

from dataclasses import replace

import torch

from burnish.artifacts.direction import Enhancement
from burnish.evaluation.pairs import Answered, PairKind, answered_items
from burnish.explaining.facts import Attribution, LayerPart
from burnish.model.derivatives import derivatives
from burnish.model.model import Model
from burnish.model.scoring import Candidate, likelihood_changes, score
from burnish.steps import Progress

MEASURED = 5  # layers whose part is measured alone
AIMS: dict[PairKind, str] = {
    "references": "log probability per token of reference answers",
    "made": "log probability per token of self-made good answers",
    "user": "log probability per token of the good answers given",
}


def attribute(
    model: Model,
    enhancement: Enhancement,
    answers: list[Answered],
    kind: PairKind,
    *,
    progress: Progress | None = None,
) -> Attribution:
    """Splits the change of the good answers' log probability over layers.

    A layer's first-order part is its gains times the derivative at zero gains; the parts add up. What is measured has that layer
    alone edited, so it leaves out how layers work together.
    """
    items = answered_items(model, answers)
    gains = enhancement.gains
    slopes = derivatives(model, items, enhancement.vectors, torch.zeros_like(gains), progress=progress)
    by_layer = (slopes.mean(0) * gains.double()).sum(1)
    edited = enhancement.edited_layers()
    ranked = sorted(edited, key=lambda layer: -abs(float(by_layer[layer])))[:MEASURED]
    parts = [Candidate(str(layer), _only(enhancement, layer)) for layer in ranked]
    scores = score(model, items, [Candidate("whole", enhancement), *parts])
    changes = [float(likelihood_changes(scores.base, rows).mean()) for rows in scores.candidates]
    alone = dict(zip(ranked, changes[1:], strict=True))
    return Attribution(
        aim=AIMS[kind],
        answers=len(items),
        total=changes[0],
        first_order=float(by_layer.sum()),
        layers=tuple(LayerPart(layer, float(by_layer[layer]), alone.get(layer)) for layer in edited),
    )


def _only(enhancement: Enhancement, layer: int) -> Enhancement:
    gains = torch.zeros_like(enhancement.gains)
    gains[layer] = enhancement.gains[layer]
    return replace(enhancement, gains=gains)
