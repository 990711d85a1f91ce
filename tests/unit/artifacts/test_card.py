"""A card is data: read as the hub reads it, and written as YAML that says the same."""

from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from burnish.artifacts.card import base_facts, read_card, write_card


@pytest.mark.parametrize(
    ("front", "languages", "licence"),
    [
        ("license: mit\nlanguage: no", ["no"], "mit"),
        ("license: mit\nlanguage: [en, no, 'on', yes, y]", ["en", "no", "on", "yes", "y"], "mit"),
        ("license: mit\nlanguage:\n- nb\n- true\n- 7", ["nb"], "mit"),
        ("license: 2024-01-01\ntags: [a---b]", [], "2024-01-01"),
        ("license: [mit, apache-2.0]\nlanguage: en", ["en"], None),
        ("license: {name: mit}", [], None),
        ("- mit", [], None),
        ("license: [", [], None),
        ("license: !!python/object/apply:os.getcwd []", [], None),
    ],
)
@pytest.mark.parametrize("begin", ["", "\ufeff", "\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_a_card_says_of_language_and_licence_is_read(
    front: str, languages: list[str], licence: str | None, begin: str, end: str
) -> None:
    card = (f"{begin}---\n{front}\n---\n# Mine\n").replace("\n", end)
    facts = base_facts("owner/model", card)
    assert (facts["language"], facts["licence"]) == (languages, licence)


@pytest.mark.parametrize("card", ["", "# Mine", "---", "---\nlicense: mit", "a\n---\nlicense: mit\n---\n"])
def test_a_card_without_a_table_says_nothing(card: str) -> None:
    assert read_card(card) == ({}, card)


def test_the_name_of_a_model_is_its_own_and_not_its_parents() -> None:
    assert base_facts("mine", "---\nbase_model: owner/parent\n---\n")["name"] == "mine"


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@settings(deadline=None)
@example({}, ["\xa0"])
@given(st.dictionaries(st.sampled_from(["license", "license_name", "base_model"]), WORDS), st.lists(WORDS, min_size=1))
def test_what_is_written_is_read_back(texts: dict[str, str], languages: list[str]) -> None:
    front: dict[str, Any] = {**texts, "language": languages}
    card = write_card(front, "# Mine\n\n---\n")
    assert read_card(card) == (front, "# Mine\n\n---\n")
    assert yaml.safe_load(card.split("\n---\n")[0]) == front


def test_values_that_say_nothing_are_left_out() -> None:
    assert write_card({"license": None, "language": [], "tags": ["a"]}, "") == "---\ntags:\n- a\n---\n"
