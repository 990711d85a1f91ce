"""Learnt directions, one by one: what each writes and on which prompts it acts."""

from collections.abc import Sequence

import torch

from burnish.artifacts.direction import Enhancement
from burnish.explaining.facts import Acting, ActingDirection
from burnish.learning.learned_enhancement import coordinates
from burnish.model.logit_lens import vocabulary_weights
from burnish.model.model import Model
from burnish.prompts import Prompt
from burnish.prompts.domains import load_general

TOKENS = 10
PROMPTS = 24  # of the speciality, and everyday ones
EXTREMES = 3  # prompts of each end


@torch.no_grad()
def acting(model: Model, enhancement: Enhancement, special: Sequence[Prompt], language: str) -> Acting | None:
    """Reads prompts once: coordinates of what attention writes, along every learnt direction.

    Args:
        model: the base model.
        enhancement: learnt directions, [layers, k]; those found as a contrast are left out.
        special: held-out prompts of the specialities.
        language: of the everyday prompts beside them.

    Returns:
        Every learnt direction with a gain, the one that moves most first, and how far each layer's output moves. None where there
        is none.
    """
    learnt = torch.tensor([d.learned for d in enhancement.directions])
    gains = enhancement.gains * learnt
    if not gains.any():
        return None
    prompts = [*special, *load_general(language).held_out.spread(PROMPTS).prompts]
    along = coordinates(model, prompts, enhancement)
    moved = (along * gains).square().mean(0).sqrt()  # [layers, k]
    views = []
    for layer in gains.any(1).nonzero().flatten().tolist():
        weights = vocabulary_weights(model, enhancement.vectors[layer])
        for k in gains[layer].nonzero().flatten().tolist():
            strongest, weakest = _extremes(prompts, along[:, layer, k].tolist())
            view = ActingDirection(
                layer=layer,
                number=int(learnt[: k + 1].sum()),
                gain=float(gains[layer, k]),
                moved=float(moved[layer, k]),
                promoted=_tokens(model, weights[k], largest=True),
                suppressed=_tokens(model, weights[k], largest=False),
                strongest=strongest,
                weakest=weakest,
            )
            views.append(view)
    views.sort(key=lambda view: -view.moved)
    layers = enumerate(moved.square().sum(1).sqrt().tolist())
    return Acting(int(learnt.sum()), len(prompts), tuple(views), tuple(layers))


def _tokens(model: Model, weights: torch.Tensor, *, largest: bool) -> tuple[str, ...]:
    indices = weights.topk(min(TOKENS, len(weights)), largest=largest).indices.tolist()
    return tuple(str(model.tokenizer.decode([i])) for i in indices)


def _extremes(prompts: Sequence[Prompt], values: list[float]) -> tuple[tuple[tuple[str, float], ...], ...]:
    """The prompts with the largest coordinate, and those with the most negative, each with it."""
    rows = sorted(zip((p.text for p in prompts), values, strict=True), key=lambda row: -row[1])
    return tuple(rows[:EXTREMES]), tuple(rows[: -EXTREMES - 1 : -1])
