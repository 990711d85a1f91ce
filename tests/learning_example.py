"""A speciality so small that a tiny model learns it in a moment."""

from collections.abc import Sequence
from dataclasses import replace

from burnish.evaluation.pairs import Answered
from burnish.learning.descent import Descent, descend
from burnish.learning.subject import Subject
from burnish.learning.teacher import Expert, lessons_of
from burnish.model.imitation import Lesson, SymmetricEdit
from burnish.model.model import Model
from burnish.options import LearnOptions
from burnish.prompts import Prompt, PromptSet

WORDS = [
    f"{verb} the {noun}"
    for verb in ("Tell", "Show", "Name")
    for noun in ["way", "sea", "oven", "moon", "door", "tree", "boat"]
]
SMALL = LearnOptions(
    steps=6,
    rows=4,
    everyday_rows=2,
    directions=2,
    prompts=8,
    tokens=8,
    everyday=8,
    everyday_tokens=6,
    measured=6,
    reported=6,
    repetition=1.0,
    budget=0.2,
)


def prompts(texts: Sequence[str]) -> PromptSet:
    return PromptSet("words", tuple(map(Prompt.of, texts)))


def subject(**changes: object) -> Subject:
    made = Subject("verse", Expert("Sing of the sea and the moon"), prompts(WORDS[:14]), prompts(WORDS[14:]))
    return replace(made, **changes)  # type: ignore[arg-type]


def lessons(model: Model, teacher: Expert) -> list[Lesson]:
    answers = [Answered(Prompt.of(t), [40 + i, 50, 60, 70 + i]) for i, t in enumerate(WORDS[:8])]
    return lessons_of(model, teacher, answers)


def nothing(edit: SymmetricEdit) -> list[Lesson]:
    return []


def calm(model: Model) -> list[Lesson]:
    return lessons(model, Expert(""))


def run(model: Model, **how: object) -> Descent:
    options = replace(SMALL, **how.pop("options", {}))  # type: ignore[call-overload]
    return descend(model, lessons(model, Expert("Sing")), calm(model), nothing, options, **how)  # type: ignore[arg-type]
