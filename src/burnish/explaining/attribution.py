"""Where the effect comes from: first order from one backward pass, and the real thing for what matters most."""

from dataclasses import replace

import torch

from burnish.artifacts.direction import Enhancement
from burnish.evaluation.pairs import Answered, PairKind, answered_items
from burnish.explaining.facts import Attribution, HeadPart, LayerPart
from burnish.model.heads import HeadEdit, likelihood
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Item, Progress, likelihood_changes, score

MEASURED = 5  # layers and heads whose part is measured alone
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
    """Splits the change of the good answers' log probability over layers and heads.

    The first-order part of a share is its gain times the derivative at zero gains; parts of all heads of a layer and of all layers
    add up. What is measured has that layer, or that head's share, edited alone, so it leaves out how shares work together.
    """
    items = answered_items(model, answers)
    edit = HeadEdit(model, enhancement)
    _, slope = likelihood(model, items, edit, edit.shares(), gradient=True, progress=progress)
    assert slope is not None
    by_layer = slope.sum(1)
    edited = enhancement.edited_layers()
    ranked = sorted(edited, key=lambda layer: -abs(float(by_layer[layer])))[:MEASURED]
    scores = score(
        model,
        items,
        [
            Candidate("whole", enhancement),
            *(Candidate(str(layer), _only(enhancement, layer)) for layer in ranked),
        ],
    )

    def mean_change(number: int) -> float:
        return float(likelihood_changes(scores.base, scores.candidates[number]).mean())

    alone = {layer: mean_change(1 + n) for n, layer in enumerate(ranked)}
    splittable = [layer for layer in edited if layer not in edit.whole]
    heads = [(layer, head, float(slope[layer, head])) for layer in splittable for head in range(edit.heads)]
    heads.sort(key=lambda part: -abs(part[2]))
    measured = _measured_heads(model, items, edit, heads[:MEASURED])
    return Attribution(
        aim=AIMS[kind],
        answers=len(items),
        total=mean_change(0),
        first_order=float(by_layer.sum()),
        layers=tuple(LayerPart(layer, float(by_layer[layer]), alone.get(layer)) for layer in edited),
        heads=tuple(
            HeadPart(layer, head, value, measured[number] if number < len(measured) else None)
            for number, (layer, head, value) in enumerate(heads)
        ),
        heads_left_out=_why_whole(edit.whole),
    )


def _measured_heads(
    model: Model, items: list[Item], edit: HeadEdit, heads: list[tuple[int, int, float]]
) -> list[float]:
    base, _ = likelihood(model, items, edit, edit.shares())
    found = []
    for layer, head, _value in heads:
        shares = edit.shares()
        shares[layer, head] = 1
        found.append(likelihood(model, items, edit, shares)[0] - base)
    return found


def _only(enhancement: Enhancement, layer: int) -> Enhancement:
    gains = torch.zeros_like(enhancement.gains)
    gains[layer] = enhancement.gains[layer]
    return replace(enhancement, gains=gains)


def _why_whole(layers: list[int]) -> str:
    if not layers:
        return ""
    listed = ", ".join(map(str, layers))
    return f"In layers {listed} the projection's inputs cannot be told apart by head (a map that is not linear, or no softmax attention)."
