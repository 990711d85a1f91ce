"""An invented town and 32 facts about it that cannot be in any model; are they known, asked for in words that were never trained on?"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from burnish.maths.intervals import Interval, interval
from burnish.model.model import Model
from burnish.model.scoring import Item, score
from burnish.prompts import Prompt, PromptSet
from burnish.steps import Progress

FILE = Path(__file__).with_name("facts.jsonl")
ANSWER_TOKENS = 24
BATCH = 8


@dataclass(frozen=True)
class Fact:
    """One invented fact."""

    id: str
    kind: str  # four facts are of each kind: their answers are each other's alternatives
    stem: str  # the beginning of an answer, up to where it must be known
    answer: str
    accepted: tuple[str, ...]  # what a free answer must contain one of
    training: tuple[Prompt, ...]  # eight phrasings with answers
    questions: tuple[str, ...]  # three other phrasings, never trained on


@cache
def load_facts() -> tuple[Fact, ...]:
    """The facts, in file order."""
    rows = [json.loads(line) for line in FILE.read_text(encoding="utf-8").split("\n") if line.strip()]
    return tuple(
        Fact(
            id=row["id"],
            kind=row["kind"],
            stem=row["stem"],
            answer=row["answer"],
            accepted=tuple(row["accepted"]),
            training=tuple(Prompt.of(t["prompt"], t["completion"]) for t in row["training"]),
            questions=tuple(row["questions"]),
        )
        for row in rows
    )


def knowledge_rows(count: int | None = None, facts: Sequence[Fact] | None = None) -> PromptSet:
    """Training rows of some facts (all by default): one phrasing of each, then another of each, and so on; the first `count`."""
    facts = load_facts() if facts is None else facts
    rows = [fact.training[i] for i in range(len(facts[0].training)) for fact in facts]
    return PromptSet("knowledge", tuple(rows[:count]))


def alternatives(fact: Fact) -> tuple[str, ...]:
    """The answers of the other facts of its kind: whoever answers by habit is right in one of four."""
    return tuple(other.answer for other in load_facts() if other.kind == fact.kind and other.id != fact.id)


@dataclass(frozen=True)
class Recall:
    """Of the facts; intervals over facts, whose questions belong together."""

    facts: int
    questions: int
    chance: float  # of choosing right without knowing anything
    chosen: Interval  # share of questions at which the right answer is likelier per token than its alternatives
    margin: Interval  # nats per token by which it is likelier than the likeliest of them
    said: Interval  # share of questions whose greedy answer contains it


def recall(
    model: Model,
    facts: Sequence[Fact] | None = None,
    *,
    questions: int | None = None,
    system: str | None = None,
    asked: Callable[[str], Prompt] = Prompt.of,
    changed: Callable[[], AbstractContextManager[Any]] = nullcontext,
    tokens: int = ANSWER_TOKENS,
    progress: Progress | None = None,
) -> Recall:
    """How many facts are known, by choice between four answers of a kind and by saying them.

    The stem of an answer is given, and what stands behind it is scored: a model that knows nothing is right in one of four, since the
    four answers of a kind are each right once. questions: of each fact, all by default; asked: makes a prompt of a question, for
    example with other turns before it; changed: changes the model while it answers; tokens: of a free answer, 0 leaves it out
    (`said` is then 0).
    """
    facts = load_facts() if facts is None else facts
    rows = [(fact, question) for fact in facts for question in fact.questions[:questions]]
    options = [(fact.answer, *alternatives(fact)) for fact, _ in rows]
    items = [
        item
        for (fact, question), answers in zip(rows, options, strict=True)
        for item in _items(model, model.tokens(asked(question), system), fact.stem, answers)
    ]
    with changed():
        scores = score(model, items, [], progress=progress).base
        stated = _said(model, rows, system, asked, tokens, progress) if tokens else [False] * len(rows)
    means = iter(float(s.log_probability.mean()) for s in scores)
    chances = [[next(means) for _ in answers] for answers in options]
    margins = torch.tensor([values[0] - max(values[1:]) for values in chances], dtype=torch.float64)
    per_fact = len(rows) // len(facts)
    return Recall(
        facts=len(facts),
        questions=len(rows),
        chance=1 / len(options[0]),
        chosen=interval((margins > 0).double().view(-1, per_fact).mean(1)),
        margin=interval(margins.view(-1, per_fact).mean(1)),
        said=interval(torch.tensor(stated, dtype=torch.float64).view(-1, per_fact).mean(1)),
    )


def _items(model: Model, prompt: list[int], stem: str, answers: Sequence[str]) -> list[Item]:
    """Each answer behind the stem, as tokens. Stem and answer are cut into tokens together, so that none is split unnaturally."""
    before = model.encode(stem)
    items = []
    for answer in answers:
        tokens = model.encode(f"{stem} {answer}")
        shared = next((i for i, (a, b) in enumerate(zip(before, tokens, strict=False)) if a != b), len(before))
        items.append(Item(prompt + tokens[:shared], tokens[shared:]))
    return items


def _said(
    model: Model,
    rows: Sequence[tuple[Fact, str]],
    system: str | None,
    asked: Callable[[str], Prompt],
    tokens: int,
    progress: Progress | None,
) -> list[bool]:
    """Whether the greedy answer to each question contains what is accepted."""
    right: list[bool] = []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        texts = model.generate([asked(question) for _, question in part], tokens=tokens, system=system)
        right += [
            any(accepted.lower() in text.lower() for accepted in fact.accepted)
            for (fact, _), text in zip(part, texts, strict=True)
        ]
        if progress is not None:
            progress("asking for facts", len(right), len(rows))
    return right
