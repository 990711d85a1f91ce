"""Every statistic gives what its definition says; the values are counted by hand."""

import math
from importlib.resources import files

import pytest
import yaml

from burnish.errors import InputError
from burnish.evaluation.text_statistics import (
    STATISTICS,
    measure,
    words,
)
from burnish.prompts.domains import load_domain, packaged_names

ODD = ("", " \n\n", "?", "…", "```", "“", "# ", "1.", "\u1112\u1161\u11ab", "a", "[", "🙂", "'", "가")
FOUR = "one two three four"
CASES = [
    ("lexical-diversity", "go go go go", 2.0),  # a factor after 2 words, twice
    ("lexical-diversity", "red sea red", 3.0),  # 2 of 3 is below 0.72: one factor in either direction
    ("lexical-diversity", "a b c d", 4 / (1 / 4 / 0.28)),  # as if one of the four were repeated
    ("lexical-diversity", "나무가 나무는 나무를 나무도", 2.0),  # one stem
    ("repetition", f"{FOUR} {FOUR}", 1 / 5),
    ("repetition", "one two three", 0.0),
    ("stock-phrases", "A vibrant tapestry, delving deep.", 40.0),
    ("stock-phrases", "It’s important to note this.", 20.0),
    ("stock-phrases", "결론적으로 이것은 중요합니다.", 200 / 3),
    ("length", "Don't stop: well-known words_here.", 5.0),
    ("length", "그는 웃었다.", 2.0),
    ("sensory-words", "The cold stones whispered again.", 60.0),
    ("sensory-words", "차가운 목소리가 들렸다.", 200 / 3),
    ("quoted-share", 'abc "de" f', 0.2),
    ("quoted-share", "“ab” ‘it’s’", 6 / 11),
    ("quoted-share", "「가나」 다라", 2 / 7),
    ("examples", "Fruit, for example pears, e.g. ripe ones", 200 / 8),
    ("examples", "예를 들어 사과가 있다", 25.0),
    ("steps", "1. Cut\n2) Glue\n**Step 3**: dry\n```\n1. no\n```\nIn 1. no", 3.0),
    ("steps", "1단계: 썬다\n2단계: 볶는다", 2.0),
    ("code-share", "ab `cd` ef", 0.2),
    ("code-share", "ab```cd", 2 / 7),
    ("courtesy", "Please accept our apologies.", 50.0),
    ("courtesy", "검토 부탁드립니다.", 50.0),
    ("hedges", "It may possibly help, data suggest", 50.0),
    ("hedges", "효과가 있을 수 있다", 25.0),
]


def test_a_known_text_gives_the_value_counted_by_hand() -> None:
    for name, text, value in CASES:
        assert STATISTICS[name].measure(text) == pytest.approx(value, abs=1e-9), (name, text)
    assert {name for name, _, _ in CASES} == set(STATISTICS)


def test_odd_texts_give_finite_values_and_an_empty_one_zero() -> None:
    for statistic in STATISTICS.values():
        assert all(math.isfinite(statistic.measure(text)) for text in ODD), statistic.name
        assert statistic.measure("") == 0.0


@pytest.mark.parametrize("domain", packaged_names())
def test_every_measure_of_a_domain_exists_and_is_finite_on_its_references(domain: str) -> None:
    loaded = load_domain(domain)
    assert set(loaded.measures) <= set(STATISTICS)
    texts = [p.answer or "" for p in loaded.references_report.prompts]
    values = measure(texts, loaded.measures)
    assert all(len(column) == len(texts) and all(map(math.isfinite, column)) for column in values.values())


def test_the_asked_measures_come_first_the_general_ones_follow_once_and_an_unknown_one_is_named() -> None:
    general = ["lexical-diversity", "repetition", "stock-phrases"]
    assert list(measure(["a b"], ["length", "hedges"])) == ["length", "hedges", *general]
    with pytest.raises(InputError, match="no measure 'charm'"):
        measure(["a"], ["charm"])


def test_a_longer_text_of_the_same_words_is_as_diverse() -> None:
    line = "the cat saw the dog and the dog saw the cat near the old gate "
    once, twice = (STATISTICS["lexical-diversity"].measure(line * n) for n in (4, 8))
    assert once == pytest.approx(twice, rel=0.15)


def test_words_keep_apostrophes_leave_out_punctuation_and_may_be_of_loose_jamo() -> None:
    assert words("It’s 3.5 km_h") == ["it's", "3", "5", "km", "h"]
    assert STATISTICS["sensory-words"].measure("\u110c\u1165\u11bd\u110b\u1173\u11ab") == 100.0  # 젖은


@pytest.mark.parametrize("language", ["en", "ko"])
def test_word_lists_are_short_unique_and_text(language: str) -> None:
    file = files("burnish.languages") / language / "words.yaml"
    for name, entries in yaml.safe_load(file.read_text(encoding="utf-8")).items():
        assert all(isinstance(entry, str) for entry in entries), name
        assert len(set(entries)) == len(entries), name
        assert 20 <= len(entries) <= 64, name


@pytest.mark.parametrize(("language", "count", "fewest", "most"), [("en", 24, 60, 90), ("ko", 12, 40, 80)])
def test_the_neutral_prose_is_one_paragraph_a_line(language: str, count: int, fewest: int, most: int) -> None:
    file = files("burnish.languages") / language / "prose.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(set(lines)) == len(lines) == count
    assert all(fewest <= len(line.split()) <= most for line in lines)
