"""Every statistic gives what its definition says; the values are counted by hand."""

import math
import re
from importlib.resources import files

import pytest
import yaml

from burnish.errors import InputError
from burnish.evaluation.text_statistics import (
    GENERAL,
    MEASURES,
    STATISTICS,
    measure,
    names,
    sentences,
    syllables,
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
    ("distinct-2", "go up go up go", 2 / 4),
    ("distinct-2", "word", 0.0),
    ("repetition", f"{FOUR} {FOUR}", 1 / 5),
    ("repetition", "one two three", 0.0),
    ("stock-phrases", "A vibrant tapestry, delving deep.", 40.0),
    ("stock-phrases", "It’s important to note this.", 20.0),
    ("stock-phrases", "결론적으로 이것은 중요합니다.", 200 / 3),
    ("length", "Don't stop: well-known words_here.", 5.0),
    ("length", "그는 웃었다.", 2.0),
    ("sentence-length", "One two. Three four five six!", 3.0),
    ("sentence-length", "1. One two\n2. Three four", 2.0),
    ("sensory-words", "The cold stones whispered again.", 60.0),
    ("sensory-words", "차가운 목소리가 들렸다.", 200 / 3),
    ("adjectives", "A famous old house; handful of nervous men.", 300 / 8),
    ("names", "Mara met Ilya and Mara. “Come,” said Ilya's aunt on Monday. Then I left.", 2.0),
    ("names", "# The Old Garden\nWe read NASA reports in it.", 0.0),
    ("pronouns", "He's here and she saw them.", 50.0),
    ("pronouns", "그는 너무 작은 나무를 보았다.", 20.0),
    ("interior-verbs", "She thought and forgot nothing", 40.0),
    ("interior-verbs", "그는 오래 생각했다", 100 / 3),
    ("quoted-share", 'abc "de" f', 0.2),
    ("quoted-share", "“ab” ‘it’s’", 6 / 11),
    ("quoted-share", "「가나」 다라", 2 / 7),
    ("quoted-turns", '"Go," she said. "Now." “No.”', 3.0),
    ("quoted-turns", "“밥 먹었어?” “응.”", 2.0),
    ("quoted-turns", "It's the dogs' bowl.", 0.0),
    ("paragraphs", "One.\n\nTwo.\nStill two.\n \n\n***\n\nThree.", 3.0),
    ("paragraphs", "하나.\n\n둘.", 2.0),
    ("connectives", "Then it rained because of wind", 200 / 6),
    ("connectives", "그 후 비 때문에 늦었다", 200 / 5),
    ("ending", "He said, “No.”\n", 1.0),
    ("ending", "He said that the", 0.0),
    ("ending", "끝났다.", 1.0),
    ("affect-words", "Happy environment, terrible happenings, tears", 40.0),
    ("affect-words", "눈물이 났다", 50.0),
    ("definitions", "A noun is a name. Verb means doing.", 200 / 8),
    ("definitions", "광합성이란 빛을 쓰는 과정을 말한다", 200 / 5),
    ("examples", "Fruit, for example pears, e.g. ripe ones", 200 / 8),
    ("examples", "예를 들어 사과가 있다", 25.0),
    ("questions", "Why?! Really?? Yes.", 200 / 3),
    ("questions", "왜? 그래서?", 100.0),
    ("steps", "1. Cut\n2) Glue\n**Step 3**: dry\n```\n1. no\n```\nIn 1. no", 3.0),
    ("steps", "1단계: 썬다\n2단계: 볶는다", 2.0),
    ("reading-ease", "The cat sat.", 206.835 - 1.015 * 3 - 84.6),
    ("headings", "# One\ntext\n## Two\n#hashtag\n```sh\n# comment\n```", 2.0),
    ("code-share", "ab `cd` ef", 0.2),
    ("code-share", "ab```cd", 2 / 7),
    ("units", "Take 5 mg in 24-hour steps, $3, since the 1990s.", 300 / 10),
    ("units", "10분 동안 20% 줄인 물 3 잔", 300 / 7),
    ("greeting", "Subject: Plan\n\nDear Mara,\nhere it is.", 1.0),
    ("greeting", "The plan says hi to nobody.", 0.0),
    ("greeting", "김 부장님께\n자료를 보냅니다.", 1.0),
    ("sign-off", "Text.\n\nKind regards,\nMara", 1.0),
    ("sign-off", "Thanks to all of you we won.", 0.0),
    ("sign-off", "내용입니다.\n감사합니다.\n홍길동 드림", 1.0),
    (
        "action-items",
        "- Send the file\n- Mara: draft it\n- [ ] Ilya will call\n- Cost, due Friday\n- Cost: high\nSend it",
        4.0,
    ),
    ("action-items", "* by market rules\n* **Review** the plan", 1.0),
    ("action-items", "- 금요일까지 회신\n- 비용은 높음", 1.0),
    ("courtesy", "Please accept our apologies.", 50.0),
    ("courtesy", "검토 부탁드립니다.", 50.0),
    ("hedges", "It may possibly help, data suggest", 50.0),
    ("hedges", "효과가 있을 수 있다", 25.0),
    ("terms", "Severe arthritis, hypertension: a hard cardiology case", 300 / 7),
    ("terms", "단백질 수용체는 작다", 200 / 3),
    ("citations", "Seen [3, 4] (Lee et al., 2019); Kim et al. (2020) agree", 300 / 12),
    ("citations", "그렇다고 한다 [1]", 100 / 3),
]


@pytest.mark.parametrize(("name", "text", "value"), CASES)
def test_a_known_text_gives_the_value_counted_by_hand(name: str, text: str, value: float) -> None:
    assert STATISTICS[name].measure(text) == pytest.approx(value, abs=1e-9)


def test_every_statistic_has_a_known_answer_in_each_of_its_languages() -> None:
    alike = {
        "distinct-2",
        "repetition",
        "sentence-length",
        "headings",
        "code-share",
    }  # nothing in them knows the language
    seen = {(name, "ko" if re.search("[가-힣]", text) else "en") for name, text, _ in CASES}
    asked = {(s.name, one) for s in STATISTICS.values() for one in s.languages}
    assert {name for name, _ in asked - seen} <= alike
    assert {name for name, _ in seen} == set(STATISTICS)


@pytest.mark.parametrize("name", sorted(STATISTICS))
def test_odd_texts_give_finite_values_and_an_empty_one_zero(name: str) -> None:
    assert all(math.isfinite(STATISTICS[name].measure(text)) for text in ODD)
    assert STATISTICS[name].measure("") == 0.0


@pytest.mark.parametrize("domain", packaged_names())
def test_every_measure_of_a_domain_exists_and_is_finite_on_its_references(domain: str) -> None:
    loaded = load_domain(domain)
    assert set(loaded.measures) <= set(MEASURES)
    texts = [p.answer or "" for p in loaded.references_report.prompts]
    values = measure(texts, loaded.language, loaded.measures)
    assert all(len(column) == len(texts) and all(map(math.isfinite, column)) for column in values.values())


def test_measures_are_made_of_known_statistics_and_none_is_left_over() -> None:
    assert {n for part in MEASURES.values() for n in part} | set(GENERAL) == set(STATISTICS)


def test_the_asked_measures_come_first_and_the_general_ones_follow_once() -> None:
    assert list(measure(["a b"], "en", ["length", "emotion"])) == [
        *("length", "sentence-length", "affect-words"),
        *("lexical-diversity", "distinct-2", "repetition", "stock-phrases"),
    ]


def test_what_korean_lacks_is_left_out() -> None:
    measured = measure(["그는 웃었다.", ""], "ko", ["description", "character", "readability"])
    assert not {"adjectives", "names", "reading-ease"} & set(measured)
    assert measured["length"] == [2.0, 0.0]


def test_no_texts_give_empty_columns() -> None:
    assert set(map(tuple, measure([], "en", ["tone"]).values())) == {()}


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(InputError, match="no measure 'charm'"):
        measure(["a"], "en", ["charm"])


def test_loose_jamo_count_like_syllables() -> None:
    assert STATISTICS["affect-words"].measure("\u1102\u116e\u11ab\u1106\u116e\u11af\u110b\u1175") == 100.0  # 눈물이


def test_a_longer_text_of_the_same_words_is_as_diverse() -> None:
    line = "the cat saw the dog and the dog saw the cat near the old gate "
    once, twice = (STATISTICS["lexical-diversity"].measure(line * n) for n in (4, 8))
    assert once == pytest.approx(twice, rel=0.15)


def test_words_sentences_names_and_syllables() -> None:
    assert words("It’s 3.5 km_h") == ["it's", "3", "5", "km", "h"]
    assert sentences("- One. Two?\nThree") == ["One.", "Two?", "Three"]
    assert names("He saw Jean-Luc: Nobody else.") == {"Jean-Luc"}
    assert [syllables(w) for w in ("table", "whole", "the", "rhythm", "area", "42")] == [2, 1, 1, 1, 2, 1]


@pytest.mark.parametrize("language", ["en", "ko"])
def test_word_lists_are_short_unique_and_text(language: str) -> None:
    file = files("burnish.evaluation") / "words" / f"{language}.yaml"
    for name, entries in yaml.safe_load(file.read_text(encoding="utf-8")).items():
        assert all(isinstance(entry, str) for entry in entries), name
        assert len(set(entries)) == len(entries), name
        assert 20 <= len(entries) <= 64, name


@pytest.mark.parametrize(("language", "count", "fewest", "most"), [("en", 24, 60, 90), ("ko", 12, 40, 80)])
def test_the_neutral_prose_is_one_paragraph_a_line(language: str, count: int, fewest: int, most: int) -> None:
    file = files("burnish.evaluation") / "prose" / f"{language}.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(set(lines)) == len(lines) == count
    assert all(fewest <= len(line.split()) <= most for line in lines)
