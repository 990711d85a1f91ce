"""The steps that make directions and gains out of lessons: Adam on the free form of the edit, resumable, the same for the same seed."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from burnish.artifacts.unfinished import read_unfinished, write_unfinished
from burnish.layers import layer_window
from burnish.maths.symmetric import shortened, signs
from burnish.model.imitation import Lesson, SymmetricEdit, imitate
from burnish.model.model import Model
from burnish.model.processes import current
from burnish.options import LearnOptions
from burnish.steps import Progress

START = 0.3  # length of a free row at the start: gains of about 0.09, too small to be noticed and no special point
RATE = 0.24  # length that a step moves a row of any width by, at most
WARM_UP = 3  # steps
LAST_RATE = 0.3  # of the first one
OWN_ROWS = 0.2  # of a step's answers are then the edited model's own
OWN_WEIGHT = 0.3  # of them beside the teacher's
OWN_SHARE = 0.6  # of the steps, the last ones, learn on the edited model's own answers too
BETAS = (0.9, 0.95)
SAVE_EVERY = 4  # steps


@dataclass(frozen=True)
class Losses:
    """Means over a step's tokens, nats per token."""

    teacher: float  # KL(teacher || edited)
    everyday: float  # KL(base || edited)


@dataclass(frozen=True)
class Descent:
    edit: SymmetricEdit
    losses: tuple[Losses, ...]  # of every step
    resumed_at: int  # the step at which a killed run was taken up; 0 for a new one


def descend(
    model: Model,
    taught: Sequence[Lesson],
    everyday: Sequence[Lesson],
    student: Callable[[SymmetricEdit], Sequence[Lesson]],
    options: LearnOptions,
    *,
    unfinished: Path | None = None,
    progress: Progress | None = None,
) -> Descent:
    """Learns an edit that predicts what the teacher does, and everyday answers as before.

    Args:
        model: the base model; no weight changes.
        taught: lessons of the speciality.
        everyday: lessons whose target is the base model itself.
        student: makes lessons of the edited model's own answers; called once, where the last steps begin. Their
            answers loop where the edit does, so that loops are unlearnt.
        options: steps, directions and rates.
        unfinished: where the state is kept while the run goes on; a run that was killed goes on from there.
        progress: told of every step.

    Returns:
        The edit, in its free form, and the losses of all steps.
    """
    layers, hidden = model.anatomy.layers, model.anatomy.hidden_size
    generator = torch.Generator().manual_seed(options.seed)
    start = torch.randn(layers, options.directions, hidden, generator=generator) * START / hidden**0.5
    edit = SymmetricEdit(start.requires_grad_(), signs(options.directions))
    optimiser = torch.optim.Adam([edit.rows], betas=BETAS)
    outside = [layer for layer in range(layers) if layer not in layer_window(options.layers, layers)]
    with torch.no_grad():
        edit.rows[outside] = 0
    first, losses, sampled = _resumed(unfinished, edit.rows, optimiser)
    begin = options.steps - int(OWN_SHARE * options.steps)  # the first step with own answers
    spoken_lessons: Sequence[Lesson] | None = None
    for number in range(first, options.steps):
        if number >= begin and spoken_lessons is None:
            sampled = edit.rows.detach().clone() if sampled is None else sampled
            spoken_lessons = student(SymmetricEdit(sampled, edit.signs))
        count = max(1, round(OWN_ROWS * options.rows)) if spoken_lessons else 0
        rows = turn(taught, max(1, options.rows - count), number, options.seed)
        spoken = turn(spoken_lessons or (), count, number, options.seed + 1)
        calm = turn(everyday, options.everyday_rows, number, options.seed + 2)
        weights = shares(rows, 1.0) + shares(spoken, OWN_WEIGHT) + shares(calm, options.everyday_weight)
        for group in optimiser.param_groups:
            group["lr"] = _rate(number, options.steps) * options.learning_rate / hidden**0.5
        optimiser.zero_grad()
        kl = imitate(model, edit, [*rows, *spoken, *calm], weights)
        optimiser.step()
        with torch.no_grad():
            edit.rows.copy_(shortened(edit.rows, edit.signs))
        first_calm = len(rows) + len(spoken)
        losses.append(Losses(float(torch.cat(kl[: len(rows)]).mean()), float(torch.cat(kl[first_calm:]).mean())))
        if unfinished is not None and (number + 1) % SAVE_EVERY == 0 and current().first:
            _keep(unfinished, edit.rows, sampled, optimiser, number + 1, losses)
        if progress is not None:
            progress("learning directions", number + 1, options.steps)
    return Descent(SymmetricEdit(edit.rows.detach(), edit.signs), tuple(losses), first)


def _rate(number: int, steps: int) -> float:
    """Of the step's size: a short warm-up, then a straight fall. The last steps, which unlearn loops, stay long enough for that."""
    return RATE * min(1, (number + 1) / WARM_UP) * (1 - (1 - LAST_RATE) * number / steps)


def turn(lessons: Sequence[Lesson], count: int, number: int, seed: int) -> list[Lesson]:
    """The lessons of a step: all of them in a seeded order, then in another, ...; a function of the step alone."""
    if not lessons or not count:
        return []
    lessons_of_step = []
    for place in range(number * count, (number + 1) * count):
        time, index = divmod(place, len(lessons))
        order = list(range(len(lessons)))
        random.Random(f"{seed} {time}").shuffle(order)
        lessons_of_step.append(lessons[order[index]])
    return lessons_of_step


def shares(lessons: Sequence[Lesson], weight: float) -> list[float]:
    """Of each answer's tokens, so that the sum over tokens is `weight` times their mean."""
    tokens = sum(len(lesson.item.answer) for lesson in lessons)
    return [weight / max(1, tokens)] * len(lessons)


def _keep(
    path: Path, rows: Tensor, sampled: Tensor | None, optimiser: torch.optim.Adam, done: int, losses: Sequence[Losses]
) -> None:
    """sampled: the rows whose own answers are learnt from."""
    state = optimiser.state[rows]
    tensors = {"rows": rows.detach(), "mean": state["exp_avg"], "square": state["exp_avg_sq"], "steps": state["step"]}
    if sampled is not None:
        tensors["sampled"] = sampled
    write_unfinished(path, tensors, json.dumps({"done": done, "losses": [[x.teacher, x.everyday] for x in losses]}))


def _resumed(path: Path | None, rows: Tensor, optimiser: torch.optim.Adam) -> tuple[int, list[Losses], Tensor | None]:
    """Puts the state of a killed run in place: (steps done, their losses, the rows whose own answers are learnt from).

    Of several processes, all take up what the first one kept.
    """
    read = None if path is None or not current().first else read_unfinished(path)
    stored = current().merged({0: read} if current().first else {})[0]
    if stored is None or stored[0]["rows"].shape != rows.shape:
        return 0, [], None
    tensors, text = stored
    about = json.loads(text)
    with torch.no_grad():
        rows.copy_(tensors["rows"])
    optimiser.state[rows] = {"step": tensors["steps"], "exp_avg": tensors["mean"], "exp_avg_sq": tensors["square"]}
    return about["done"], [Losses(*pair) for pair in about["losses"]], tensors.get("sampled")
