"""The teacher is the model itself with something more in its context: an expert's system prompt, or examples of good answers.

It needs no data but prompts. What it answers is sampled once; what it predicts at each token is the lesson.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from burnish.checking import repetition
from burnish.evaluation.damage import refuses
from burnish.evaluation.pairs import Answered, answered_items, base_answers
from burnish.model.imitation import LOWEST, Lesson, log_probabilities
from burnish.model.model import Model
from burnish.prompts import Prompt, PromptSet
from burnish.steps import Progress

EXAMPLES = 3  # good answers in a teacher's context
SHORTEST = 4  # tokens of an answer worth learning from
LOOPS = 0.2  # share of repeated 4-grams from which an answer loops
NGRAM = 4
UNLIKELY = 0.01  # of the likeliest token: below, guidance does not raise a token


class Teacher(Protocol):
    """What stands before a question when the teacher answers it."""

    def prompt(self, question: Prompt) -> Prompt:
        """The question with the teacher's context."""

    @property
    def name(self) -> str:
        """Kind and hash: all that is written to files of what the teacher reads."""


@dataclass(frozen=True)
class Expert:
    """A system prompt."""

    system: str

    def prompt(self, question: Prompt) -> Prompt:
        return replace(question, messages=(("system", self.system), *question.messages))

    @property
    def name(self) -> str:
        return f"expert prompt {_hash(self.system)}"


@dataclass(frozen=True)
class Examples:
    """Good answers to other questions, as earlier turns of the conversation."""

    rows: PromptSet  # with answers

    def prompt(self, question: Prompt) -> Prompt:
        others = [p for p in self.rows.prompts if p.messages != question.messages]
        seed = int(_hash(question.text), 16)
        shown = random.Random(seed).sample(others, min(EXAMPLES, len(others)))
        turns = [turn for p in shown for turn in (*p.messages, ("assistant", p.answer or ""))]
        return replace(question, messages=(*turns, *question.messages))

    @property
    def name(self) -> str:
        return f"{EXAMPLES} examples of {len(self.rows)}, {self.rows.hash[:16]}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def teacher_answers(
    model: Model, teacher: Teacher, questions: PromptSet, tokens: int, seed: int, progress: Progress | None = None
) -> list[Answered]:
    """Sampled answers under the teacher's context that are worth learning from: none that loop, refuse or end at once."""
    asked = PromptSet(questions.name, tuple(teacher.prompt(q) for q in questions.prompts))
    sampled = base_answers(model, asked, tokens, seed=seed, progress=progress)
    rows = zip(questions.prompts, sampled, strict=True)
    return [Answered(question, answer) for question, answer in rows if worth_learning(model, answer)]


def worth_learning(model: Model, answer: Sequence[int]) -> bool:
    """Whether an answer neither ends at once, nor loops, nor opens with a refusal."""
    text = str(model.tokenizer.decode(list(answer), skip_special_tokens=True))
    return len(answer) >= SHORTEST and repetition([answer]) < LOOPS and not refuses(text)


def lessons_of(
    model: Model, teacher: Teacher, answers: Sequence[Answered], *, guidance: float = 1.0, loops: bool = True
) -> list[Lesson]:
    """What the teacher predicts at each token of some answers, for a student without its context.

    Args:
        model: the base model.
        teacher: what stands before the question.
        answers: anybody's: the teacher's own, or samples of the student.
        guidance: how far along the way from the base model's predictions to the teacher's: 1 is the teacher, above 1 is beyond
            it (likely tokens only), below 0 away from it.
        loops: whether a token that repeats a run of four may stay likely.

    Returns:
        One lesson an answer.
    """
    prompted = [Answered(teacher.prompt(row.prompt), row.answer) for row in answers]
    taught = log_probabilities(model, answered_items(model, prompted))
    items = answered_items(model, answers)
    if guidance != 1:
        plain = log_probabilities(model, items)
        taught = [guided(p, t, guidance) for p, t in zip(plain, taught, strict=True)]
    if not loops:
        taught = [without_loops(t, row.answer) for t, row in zip(taught, answers, strict=True)]
    return [Lesson(item, target) for item, target in zip(items, taught, strict=True)]


def guided(base: Tensor, teacher: Tensor, guidance: float) -> Tensor:
    """Log probabilities [tokens, vocabulary] `guidance` of the way from the base model's to the teacher's.

    Tokens that neither holds for likely keep the teacher's probability before all are scaled to sum to one. Source:
    classifier-free guidance for language models (Sanchez et al., 2023).
    """
    far = base.float() + guidance * (teacher.float() - base.float())
    likely = torch.maximum(base, teacher).float()
    likely = likely >= likely.amax(-1, keepdim=True) + torch.tensor(UNLIKELY).log()
    moved = torch.where(likely, far, teacher.float())
    return moved.log_softmax(-1).clamp_min(LOWEST).to(teacher.dtype)


def without_loops(target: Tensor, answer: Sequence[int]) -> Tensor:
    """The target in which no token is likely that would repeat a run of four tokens of its answer."""
    seen: set[tuple[int, ...]] = set()
    changed = target.float().clone()
    for end in range(NGRAM, len(answer) + 1):
        gram = tuple(answer[end - NGRAM : end])
        if gram in seen:
            changed[end - 1, answer[end - 1]] = LOWEST
        seen.add(gram)
    return changed.log_softmax(-1).clamp_min(LOWEST).to(target.dtype)
