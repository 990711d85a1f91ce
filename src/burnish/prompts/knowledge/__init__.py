"""An invented town and 32 facts about it that cannot be in any model: what is known of them afterwards was learnt from the rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from burnish.prompts.prompt_files import Prompt, PromptSet

FILE = files("burnish.prompts.knowledge") / "facts.jsonl"


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
