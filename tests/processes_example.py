"""What the processes of a job compute, and what one computes alone."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from burnish.artifacts.direction import Direction
from burnish.errors import BurnishError
from burnish.finding import find_direction
from burnish.learning.learning import learn
from burnish.learning.subject import Subject
from burnish.learning.teacher import Expert
from burnish.maths.symmetric import signs
from burnish.model.imitation import Lesson, SymmetricEdit, imitate, log_probabilities
from burnish.model.layerwise import load_layered
from burnish.model.model import Model, load
from burnish.model.processes import joined
from burnish.model.scoring import Item
from burnish.options import FindOptions, LearnOptions, ModelOptions
from burnish.prompts import Prompt, PromptSet
from conftest import random_enhancement

FLOAT = ModelOptions(dtype="float32")
SPLIT = ModelOptions(dtype="float32", tensor_parallel=True)
PROTECTED = FindOptions(instructions=9, site="attention", protect=True)

FEW = LearnOptions(
    steps=2,
    rows=3,
    everyday_rows=2,
    directions=2,
    prompts=6,
    tokens=6,
    everyday=4,
    everyday_tokens=4,
    measured=4,
    reported=4,
    repetition=1.0,
    budget=0.2,
)


def texts(count: int, end: str) -> list[str]:
    return ["".join(chr(97 + (7 * i + k) % 26) for k in range(2 + i % 5)) + end for i in range(count)]


def sets(end: str, *, answers: bool = False) -> tuple[PromptSet, PromptSet]:
    """Odd numbers of prompts. answers: on the enhance side; the model writes the other side's itself."""
    enhance = PromptSet("enhance", tuple(Prompt.of(t, f"{t} and more" if answers else None) for t in texts(15, end)))
    return enhance, PromptSet("normal", tuple(Prompt.of(t) for t in texts(13, " ...")))


def findings(folder: Path) -> dict[str, Callable[[], Direction]]:
    """Directions of every kind."""
    model = load(folder, FLOAT)

    def direction_of(
        model: Model, options: FindOptions, *, answers: bool = False, protect: PromptSet | None = None
    ) -> Direction:
        enhance, normal = sets("?!", answers=answers)
        return find_direction(model, enhance=enhance, normal=normal, options=options, protect=protect)

    return {
        "odd": lambda: direction_of(model, FindOptions(instructions=9)),
        "all": lambda: direction_of(model, FindOptions()),
        "protected": lambda: direction_of(model, PROTECTED, protect=PromptSet("spared", sets("#")[0].prompts[:5])),
        "answers": lambda: direction_of(model, FindOptions(instructions=9, position="answer"), answers=True),
        "layer by layer": lambda: direction_of(load_layered(folder, FLOAT), FindOptions(instructions=9)),
    }


@torch.inference_mode()
def computed(model: Model) -> list[Any]:
    """The direction, answers and the live form's logits of a model."""
    enhance, normal = sets("?!")
    direction = find_direction(model, enhance=enhance, normal=normal, options=FindOptions(instructions=9))
    ids = torch.tensor([model.tokens("Hello")])
    with model.enhanced(random_enhancement(model, 2.0)):
        logits, answer = model.network(ids).logits, model.chat("Hello", tokens=6)
    return [direction.vectors, logits, answer, model.chat("Hello", tokens=6)]


def verse() -> Subject:
    """A speciality of few and short prompts."""
    asked = [PromptSet("verse", tuple(map(Prompt.of, texts(count, end)))) for count, end in ((8, "?"), (6, "!"))]
    normal = PromptSet("normal", tuple(map(Prompt.of, texts(20, " ..."))))
    return Subject("verse", Expert("Sing of the sea"), *asked, normal=normal)


def learned(folder: Path, seed: int = 0) -> list[Any]:
    """Vectors and gains from a teacher."""
    enhancement = learn(load(folder, FLOAT), [verse()], replace(FEW, seed=seed)).enhancement
    return [enhancement.vectors, enhancement.gains]


def imitated(model: Model) -> list[Any]:
    """The gradient towards another prompt's predictions, and the distances of three answers."""
    items = [Item(model.tokens(text), [40 + i, 50, 60 + i][: 2 + i]) for i, text in enumerate(texts(3, "?"))]
    taught = [Item(model.tokens(text, "Sing"), item.answer) for text, item in zip(texts(3, "?"), items, strict=True)]
    lessons = [Lesson(i, t) for i, t in zip(items, log_probabilities(model, taught), strict=True)]
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(model.anatomy.layers, 2, model.anatomy.hidden_size, generator=generator) * 0.05
    edit = SymmetricEdit(rows.requires_grad_(), signs(2))
    distances = imitate(model, edit, lessons, [0.5, 0.3, 0.2])
    return [edit.rows.grad, *distances]


def note_all(folder: Path, unsplit: Path, out: Path) -> None:
    """A process: notes what it found, from prompts that are shared and from a model that is. unsplit: one whose plan fails."""
    rank = os.environ["RANK"]
    with joined():
        for name, find in findings(folder).items():
            find().save(out / f"{name}-{rank}")
        torch.save(imitated(load(folder, FLOAT)), out / f"imitated-{rank}")
        split = load(folder, SPLIT)
        torch.save(computed(split), out / f"split-{rank}")
        refusals = {
            "split": lambda: learn(split, [verse()], FEW),
            "others": lambda: learned(folder, seed=int(rank)),
            "unsplit": lambda: load(unsplit, SPLIT),
        }
        for name, wrong in refusals.items():
            try:
                wrong()
            except BurnishError as error:
                (out / f"refused-{name}-{rank}").write_text(str(error), encoding="utf-8")
