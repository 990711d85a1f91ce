"""The two sides of an axis differ in the style that is asked for and in nothing else."""

import re

import pytest

from burnish.errors import InputError
from burnish.prompts import PromptSet
from burnish.prompts.axes import axis_names, load_axis

NAMES = ("concrete-abstract", "formal-casual", "long-short", "warm-neutral")
WORD = re.compile(r"[\w']+")
EACH = pytest.mark.parametrize("name", NAMES)


def bag(text: str) -> frozenset[str]:
    return frozenset(WORD.findall(text.casefold()))


def words_of(prompts: PromptSet) -> list[tuple[str, ...]]:
    """The system words and the user's, a row each."""
    assert all([role for role, _ in p.messages] == ["system", "user"] for p in prompts.prompts)
    return [tuple(content for _, content in p.messages) for p in prompts.prompts]


def test_these_axes_are_packaged() -> None:
    assert axis_names() == list(NAMES)


@EACH
def test_both_sides_hold_the_same_user_prompts(name: str) -> None:
    axis = load_axis(name)
    assert axis.positive.texts == axis.negative.texts
    assert axis.held_positive.texts == axis.held_negative.texts
    assert (len(axis.positive), len(axis.held_positive)) == (48, 24)
    for positive, negative in ((axis.positive, axis.negative), (axis.held_positive, axis.held_negative)):
        assert all(p[0] != n[0] for p, n in zip(words_of(positive), words_of(negative), strict=True))


@EACH
def test_every_axis_names_its_poles_and_is_in_english(name: str) -> None:
    axis = load_axis(name)
    assert "-".join(axis.poles) == name
    assert (axis.positive.name, axis.negative.name) == axis.poles
    assert axis.language == "en"
    assert all(axis.title and axis.summary for axis in map(load_axis, NAMES))


@EACH
def test_the_wordings_of_a_pair_have_the_same_form_and_nearly_the_same_length(name: str) -> None:
    axis = load_axis(name)
    pairs = axis.pairs + axis.held_out_pairs
    gaps = [len(positive.split()) - len(negative.split()) for positive, negative in pairs]
    assert max(map(abs, gaps)) <= 3
    assert abs(sum(gaps)) <= 1
    for positive, negative in pairs:
        assert re.sub(r"[\w' -]", "", positive) == re.sub(r"[\w' -]", "", negative)


@EACH
def test_a_held_out_pair_holds_the_same_words_in_another_order(name: str) -> None:
    positive, negative = load_axis(name).held_out_pairs[-1]
    assert sorted(WORD.findall(positive.casefold())) == sorted(WORD.findall(negative.casefold()))


@EACH
def test_no_wording_dominates_and_held_out_prompts_have_their_own(name: str) -> None:
    axis = load_axis(name)
    for prompts, count in ((axis.positive, 6), (axis.negative, 6), (axis.held_positive, 3), (axis.held_negative, 3)):
        systems = [words for words, _ in words_of(prompts)]
        assert {systems.count(words) for words in systems} == {len(prompts) // count}
    assert not set(sum(axis.pairs, ())) & set(sum(axis.held_out_pairs, ()))


@EACH
def test_the_user_prompts_ask_for_no_style(name: str) -> None:
    axis = load_axis(name)
    poles = {pole for other in NAMES for pole in other.split("-")}
    asking = poles | {"brief", "briefly", "detailed", "detail", "informal", "polite", "simple", "friendly", "words"}
    assert [text for text in axis.positive.texts + axis.held_positive.texts if bag(text) & asking] == []


def test_an_unknown_axis_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="formal-casual"):
        load_axis("happy-sad")
