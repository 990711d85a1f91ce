"""What an enhancement learnt from a teacher does on held-out prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from burnish.artifacts.direction import Enhancement
from burnish.errors import ModelError
from burnish.evaluation.pairs import Answered, answered_items
from burnish.learning.subject import Subject
from burnish.learning.teacher import Teacher, teacher_answers
from burnish.maths.intervals import Interval, interval
from burnish.model.divergence import Divergence
from burnish.model.imitation import distances, likelihoods, log_probabilities
from burnish.model.model import Model
from burnish.options import LearnOptions
from burnish.steps import Progress

REFERENCE_TOKENS = 48
OTHER_SEED = 7  # the teacher answers held-out prompts with another seed than those that are learnt from


@dataclass(frozen=True)
class Taught:
    """What a speciality's held-out prompts show; nats per token."""

    name: str
    prompts: int
    distance: float  # KL(teacher || base) on the teacher's answers
    removed: Interval  # share of it that the enhancement removes
    likelihood: Interval  # change of log p of the teacher's answers
    teacher_likelihood: float  # the same for the teacher itself
    references: Interval | None  # change of log p of reference answers
    teacher_references: float | None


@dataclass(frozen=True)
class Learning:
    """What learning measured, as an output's numbers hold it."""

    options: LearnOptions
    damage: Divergence  # on everyday and protect prompts that nothing was chosen by
    taught: tuple[Taught, ...]  # one a speciality


def taught(
    model: Model, subject: Subject, enhancement: Enhancement, options: LearnOptions, progress: Progress | None = None
) -> Taught:
    """Distance to the teacher, and likelihood of its answers and of reference answers, on held-out prompts.

    Raises ModelError where the teacher gives hardly any answer.
    """
    held = subject.held_out.spread(options.reported)
    answers = teacher_answers(model, subject.teacher, held, options.tokens, options.seed + OTHER_SEED, progress)
    if len(answers) < 2:
        raise ModelError(
            f"Under the teacher's prompt the model gave {len(answers)} answers worth measuring to {len(held)} held-out prompts. Use "
            "another prompt or other questions."
        )
    there = _Predicted.of(model, subject.teacher, enhancement, answers)
    before = torch.stack([kl.mean() for kl in distances(there.teacher, there.base)])
    after = torch.stack([kl.mean() for kl in distances(there.teacher, there.enhanced)])
    likelihood, teacher_likelihood = there.changes()
    references: Interval | None = None
    teacher_references: float | None = None
    written = reference_answers(model, subject, options.reported)
    if len(written) > 1:
        change, teacher_change = _Predicted.of(model, subject.teacher, enhancement, written).changes()
        references, teacher_references = interval(change, seed=options.seed), float(teacher_change.mean())
    return Taught(
        name=subject.name,
        prompts=len(answers),
        distance=float(before.mean()),
        removed=interval((before - after) / before.mean().clamp_min(1e-9), seed=options.seed),
        likelihood=interval(likelihood, seed=options.seed),
        teacher_likelihood=float(teacher_likelihood.mean()),
        references=references,
        teacher_references=teacher_references,
    )


def reference_answers(model: Model, subject: Subject, count: int) -> list[Answered]:
    """The beginnings of at most `count` reference answers, as tokens."""
    chosen = subject.references.spread(count)
    tokens = [model.encode(prompt.answer or "")[:REFERENCE_TOKENS] for prompt in chosen.prompts]
    rows = zip(chosen.without_answers().prompts, tokens, strict=True)
    return [Answered(prompt, answer) for prompt, answer in rows if answer]


@dataclass(frozen=True)
class _Predicted:
    """Log probabilities at the tokens of some answers, [answer tokens, vocabulary] an answer."""

    answers: Sequence[Answered]
    base: list[Tensor]
    enhanced: list[Tensor]
    teacher: list[Tensor]

    @staticmethod
    def of(model: Model, teacher: Teacher, enhancement: Enhancement, answers: Sequence[Answered]) -> "_Predicted":
        items = answered_items(model, answers)
        prompted = answered_items(model, [replace(row, prompt=teacher.prompt(row.prompt)) for row in answers])
        with model.enhanced(enhancement):
            enhanced = log_probabilities(model, items)
        return _Predicted(answers, log_probabilities(model, items), enhanced, log_probabilities(model, prompted))

    def changes(self) -> tuple[Tensor, Tensor]:
        """Change of each answer's mean log probability: (enhanced, teacher)."""
        base, enhanced, teacher = (
            likelihoods(predicted, [row.answer for row in self.answers])
            for predicted in (self.base, self.enhanced, self.teacher)
        )
        return enhanced - base, teacher - base
