"""The page of learnt directions: answers side by side, what each direction writes and when it acts, effect and cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from burnish.artifacts.direction import Enhancement
from burnish.explaining.page import page_environment
from burnish.explaining.palette import PALETTE
from burnish.learning.learned_enhancement import coordinates
from burnish.learning.learning import Learned
from burnish.learning.subject import Subject
from burnish.model.logit_lens import vocabulary_weights
from burnish.model.model import Model
from burnish.prompts.domains import load_general

SHOWN = 8  # directions, those that move most
TOKENS = 10
PROMPTS = 24  # of the speciality, and everyday ones
EXTREMES = 3


@dataclass(frozen=True)
class DirectionView:
    """One direction of one layer."""

    layer: int
    number: int  # among the layer's, from 1: the largest gain first
    gain: float
    promoted: tuple[
        str, ...
    ]  # tokens whose logits rise most with its write, through the final norm and the unembedding
    suppressed: tuple[str, ...]
    strongest: tuple[tuple[str, float], ...]  # prompts with the largest coordinate at their last token
    weakest: tuple[tuple[str, float], ...]  # and with the most negative


@dataclass(frozen=True)
class LearnedFacts:
    directions: tuple[DirectionView, ...]
    layers: tuple[tuple[int, float], ...]  # how far the edit moves attention's output, root mean square over prompts


@torch.no_grad()
def learned_facts(model: Model, enhancement: Enhancement, subjects: Sequence[Subject]) -> LearnedFacts:
    """Reads held-out prompts once: coordinates of what attention writes, along every direction.

    Args:
        model: the base model.
        enhancement: learnt directions, [layers, k].
        subjects: their specialities.

    Returns:
        The directions that move most, and how far each layer's output moves.
    """
    general = load_general(subjects[0].language).held_out.spread(PROMPTS)
    held = [p for s in subjects for p in s.held_out.spread(max(4, PROMPTS // len(subjects))).prompts]
    prompts = [*held, *general.prompts]
    along = coordinates(model, prompts, enhancement)
    moved = (along * enhancement.gains).square().mean(0).sqrt()  # [layers, k]
    order = moved.flatten().argsort(descending=True)[:SHOWN].tolist()
    views = []
    for index in order:
        layer, k = divmod(index, enhancement.rank)
        weights = vocabulary_weights(model, enhancement.vectors[layer, k][None])[0]
        ends = [weights.topk(TOKENS, largest=largest).indices.tolist() for largest in (True, False)]
        tokens = [tuple(str(model.tokenizer.decode([i])) for i in end) for end in ends]
        values = along[:, layer, k]
        rows = values.argsort(descending=True).tolist()
        most, least = (
            tuple((prompts[i].text, float(values[i])) for i in part)
            for part in (rows[:EXTREMES], rows[: -EXTREMES - 1 : -1])
        )
        gain = float(enhancement.gains[layer, k])
        views.append(DirectionView(layer, k + 1, gain, tokens[0], tokens[1], most, least))
    total = moved.square().sum(1).sqrt()
    return LearnedFacts(tuple(views), tuple((layer, float(value)) for layer, value in enumerate(total)))


def render_learned(learned: Learned, facts: LearnedFacts) -> str:
    """The whole page as one self-contained HTML document, without scripts or network."""
    largest = max((value for _, value in facts.layers), default=0.0) or 1.0
    return (
        page_environment()
        .get_template("learned.html.jinja")
        .render(
            learned=learned,
            facts=facts,
            palette=PALETTE,
            largest=largest,
            title=" + ".join(t.name for t in learned.taught),
        )
    )
