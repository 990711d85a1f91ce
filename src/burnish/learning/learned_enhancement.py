"""From a learnt edit to directions in the files' terms, with what is known of each on held-out prompts."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from burnish.artifacts.direction import Direction, Enhancement
from burnish.artifacts.direction_file import LayerReport
from burnish.finding import provenance_of
from burnish.layers import layer_index
from burnish.learning.subject import Subject, asked_questions, everyday_sets
from burnish.maths.statistics import auroc, d_prime, largest_share
from burnish.maths.symmetric import orthonormal_form
from burnish.model.capture import captured, prompt_sequences
from burnish.model.imitation import SymmetricEdit
from burnish.model.model import Model
from burnish.options import SHUFFLES, FindOptions, LearnOptions
from burnish.prompts import Prompt, PromptSet

READ = 32  # prompts of each kind whose coordinates are read


def learned_enhancement(
    model: Model, edit: SymmetricEdit, subjects: Sequence[Subject], options: LearnOptions
) -> Enhancement:
    """Orthonormal directions with their gains, [layers, k], the largest gain first in every layer, and what they were learnt from."""
    forms = [orthonormal_form(rows, edit.signs) for rows in edit.rows]
    vectors, gains = torch.stack([v for v, _ in forms]), torch.stack([g for _, g in forms])
    gains[edit.rows.abs().amax((1, 2)) == 0] = 0
    asked = asked_questions(subjects, options)
    questions = PromptSet(
        " + ".join(subject.name for subject in subjects), tuple(p for prompts in asked for p in prompts.prompts)
    )
    find = FindOptions(scope="per-layer", site="attention", seed=options.seed)
    provenance = replace(
        provenance_of(model, [questions, everyday_sets(subjects, options).held], find),
        teacher="; ".join(subject.teacher.name for subject in subjects),
    )
    nothing = [0.0] * model.anatomy.layers
    blank = LayerReport(nothing, nothing, nothing, [], nothing, nothing, 0)
    chosen = layer_index(find.layer_idx, model.anatomy.layers)
    directions = tuple(
        Direction(chosen, "per-layer", "attention", provenance, blank, model.anatomy, vectors[:, k].contiguous())
        for k in range(options.directions)
    )
    return Enhancement(vectors.contiguous(), gains, directions)


def with_reports(model: Model, enhancement: Enhancement, speciality: PromptSet, everyday: PromptSet) -> Enhancement:
    """The directions with how far the two kinds of prompts lie apart on each, at the last token of a prompt.

    Args:
        model: the base model.
        enhancement: directions without a report.
        speciality: prompts that nothing was learnt from.
        everyday: others.

    Returns:
        The same directions, each with AUROC, d', and the share of its four largest coordinates by layer. What it takes two halves
        of the prompts to say is left empty.
    """
    sets = [s.spread(READ) for s in (speciality, everyday)]
    along = coordinates(model, [prompt for s in sets for prompt in s.prompts], enhancement)
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(along), generator=generator) for _ in range(SHUFFLES)]
    directions = []
    for k, direction in enumerate(enhancement.directions):
        both = along[:, :, k].T  # [layers, prompts]
        positive, negative = both[:, : len(sets[0])], both[:, len(sets[0]) :]
        mixed = torch.stack([_apart(both[:, order], len(sets[0])) for order in orders])
        report = LayerReport(
            auroc=_apart(both, len(sets[0])).tolist(),
            d_prime=d_prime(positive, negative).abs().tolist(),
            null_auroc=mixed.quantile(0.95, dim=0).tolist(),
            split_half_cosine=[],
            cosine_with_chosen=(direction.vectors @ direction.vectors[direction.layer]).tolist(),
            largest_share=largest_share(direction.vectors).tolist(),
            held_out=len(along),
        )
        directions.append(replace(direction, report=report))
    return replace(enhancement, directions=tuple(directions))


def coordinates(model: Model, prompts: Sequence[Prompt], enhancement: Enhancement) -> Tensor:
    """What attention writes at the last token of each prompt along the directions, [prompts, layers, k], float64."""
    vectors = enhancement.vectors.double()
    return captured(
        model,
        prompt_sequences(model, prompts),
        lambda states: torch.einsum("blh,lkh->blk", states.double(), vectors),
        site="attention",
    )


def _apart(along: Tensor, positives: int) -> Tensor:
    """AUROC of the first prompts against the others, [layers], whichever side they are on: a gain acts on both."""
    side = auroc(along[:, :positives], along[:, positives:])
    return torch.maximum(side, 1 - side)
