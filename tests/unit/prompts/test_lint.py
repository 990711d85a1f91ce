"""The linter names what would make a direction measure something else."""

import pytest

from burnish.prompts import Prompt, PromptSet
from burnish.prompts.lint import lint

TOPICS = (
    "river oven market garden violin harbour ladder candle engine pepper glacier window carpet pillow lantern bridge"
)


def prompts(name: str, texts: list[str]) -> PromptSet:
    return PromptSet(name, tuple(Prompt.of(t) for t in texts))


def numbered(word: str, end: str = ".") -> list[str]:
    topics = TOPICS.split()
    return [f"{word}{i} {topics[i % 16]} {topics[(i * 7 + i // 16) % 16]}{i} {word}x{i}{end}" for i in range(40)]


def test_matched_sets_have_no_findings() -> None:
    assert lint(prompts("a", numbered("tell")), prompts("b", numbered("name"))) == []


@pytest.mark.parametrize(
    ("enhance", "normal", "finding"),
    [
        (numbered("tell"), numbered("name")[:39] + numbered("tell")[:1], "1 prompts are in both sets"),
        (numbered("tell")[:10], numbered("name"), "'a' has 10 prompts"),
        ([*numbered("tell"), numbered("tell")[0] + " "], numbered("name"), "near-duplicates"),
        (numbered("tell"), [t + " and then some more words here" for t in numbered("name")], "mean lengths differ"),
        (numbered("tell", "?"), numbered("name"), "shares of questions differ"),
        (numbered("말해"), numbered("name"), "languages differ"),
    ],
)
def test_each_mismatch_is_named(enhance: list[str], normal: list[str], finding: str) -> None:
    assert any(finding in line for line in lint(prompts("a", enhance), prompts("b", normal)))
