"""The linter names what would make a direction measure something else."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.prompts import Prompt, PromptSet
from burnish.prompts.lint import lint, near_duplicates

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


def test_a_text_that_says_what_an_earlier_one_says_is_named_once() -> None:
    texts = ["Write me a poem!", "a poem write me", "write me a POEM", "sing", ""]
    assert near_duplicates(texts) == [(texts[1], texts[0]), (texts[2], texts[0])]


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=12), max_size=30))
def test_near_duplicates_are_those_of_comparing_all_pairs(bags: list[list[str]]) -> None:
    texts = [f"{' '.join(bag)}" for bag in bags]
    expected = []
    for i, one in enumerate(bags):
        near = (j for j in range(i) if one and len({*one} & {*bags[j]}) >= 0.8 * len({*one} | {*bags[j]}))
        expected += [(texts[i], texts[j]) for j in [next(near, -1)] if j >= 0]
    assert near_duplicates(texts) == expected


def test_a_whole_instruction_set_is_compared_in_seconds() -> None:
    generator = random.Random(0)
    words = [f"word{i}" for i in range(5000)]
    texts = [" ".join(generator.choices(words, k=12)) for _ in range(10_000)]
    started = time.process_time()
    assert near_duplicates(texts) == []
    assert near_duplicates(["Write me a poem."] * 10_000)[-1] == ("Write me a poem.", "Write me a poem.")
    for opening, near in (("Write a poem about", 0), ("Write a short poem for children about the life of", 9_999)):
        assert len(near_duplicates([f"{opening} {i}" for i in range(10_000)])) == near
    assert time.process_time() - started < 8
