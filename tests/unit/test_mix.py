"""A mix reads and prints back the same; whatever cannot be read says where and what to do."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from burnish.errors import InputError
from burnish.mix import Mix, Term

BARE = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_./-]{0,12}", fullmatch=True)
ANY = st.text(max_size=12).filter(lambda t: t.strip() and '"' not in t and t.splitlines() == [t])
TRICKY = st.sampled_from(
    ["-x", "-", "0.5", ".5", "3d files", "1e5", "a=1", "a + b", "a - b", "*", "inf", "été", "한국어"]
)
NAMES = BARE | ANY | TRICKY
WEIGHTS = (
    st.floats(allow_nan=False, allow_infinity=False).filter(bool)
    | st.integers(-5, 5).filter(bool)
    | st.integers(-(10**300), 10**300).filter(bool)
)
TERMS = st.builds(Term, WEIGHTS, NAMES)
MIXES = st.lists(TERMS, min_size=1, max_size=5, unique_by=lambda t: t.name).map(lambda terms: Mix(tuple(terms)))


@given(MIXES)
def test_every_surface_reads_the_same_mix(mix: Mix) -> None:
    surfaces = [
        str(mix),
        mix.as_dict(),
        [str(term) for term in mix.terms],
        [f'"{t.name}"={t.weight}' for t in mix.terms],
    ]
    assert [Mix.from_yaml_value(surface) for surface in surfaces] == [mix] * 4
    assert list(mix.as_dict()) == [term.name for term in mix.terms]


@given(MIXES)
def test_a_mix_survives_a_yaml_file(mix: Mix) -> None:
    written = yaml.safe_dump({"text": str(mix), "table": mix.as_dict()}, sort_keys=False, allow_unicode=True)
    read = yaml.safe_load(written)
    assert Mix.from_yaml_value(read["text"]) == Mix.from_yaml_value(read["table"]) == mix


@given(st.lists(st.tuples(WEIGHTS, BARE), min_size=1, max_size=4, unique_by=lambda t: t[1]))
def test_a_bare_mix_is_a_plain_yaml_scalar(pairs: list[tuple[float, str]]) -> None:
    mix = Mix(tuple(Term(weight, f"x{name}") for weight, name in pairs))
    assert yaml.safe_load(f"domain: {mix}") == {"domain": str(mix)}


@given(st.text(max_size=20) | st.text('ab0.5 +-*="e', max_size=20))
def test_any_text_is_a_mix_or_an_input_error(text: str) -> None:
    try:
        mix = Mix.parse(text)
    except InputError:
        return
    assert Mix.parse(str(mix)) == mix


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.6 creative-writing + 0.3 business-communication - 0.2 verbose",) * 2,
        ("creative-writing - 0.5 education",) * 2,
        ("0.6*creative-writing", "0.6 creative-writing"),
        ("0.6 * a+2.0 b", "0.6 a + 2 b"),
        ("  +1.0 a  -  1 b\n", "a - b"),
        ("- a + b", "-a + b"),
        ("-.50 a - 1e-7 b + 1E+16 c", "-0.5 a - 1e-07 b + 1e+16 c"),
        ("creative-writing=1.0 + education=-0.5", "creative-writing - 0.5 education"),
        ("a - b=0.5", "a - 0.5 b"),
        ('"creative-writing" + 2"3d files"', 'creative-writing + 2 "3d files"'),
        ("./a.safetensors + ../b/c_d-1.safetensors", "./a.safetensors + ../b/c_d-1.safetensors"),
        ('"-0.5 a"=2 - "my file=1.safetensors"', '2 "-0.5 a" - "my file=1.safetensors"'),
        ("a- + b", "a- + b"),
    ],
)
def test_known_expressions(text: str, canonical: str) -> None:
    assert str(Mix.parse(text)) == canonical
    assert str(Mix.parse(canonical)) == canonical


def test_known_terms() -> None:
    assert Mix.parse("0.6 a - b").terms == (Term(0.6, "a"), Term(-1.0, "b"))
    assert Mix.parse("education=0.5").terms == (Term(0.5, "education"),)
    assert [str(Term(weight, "a")) for weight in (1, -1, 2, -0.1)] == ["a", "-a", "2 a", "-0.1 a"]


def test_each_entry_may_be_an_expression() -> None:
    assert Mix.of(["creative-writing=1.0", "education=0.5"]) == Mix.parse("creative-writing + 0.5 education")
    assert str(Mix.of(["a", "0.5 b - c"])) == "a + 0.5 b - c"


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        ("a - b", "a - b"),
        ({"a": 1, "my file": -0.5, "c": "1e-3"}, 'a - 0.5 "my file" + 0.001 c'),
        (["a=2", "b"], "2 a + b"),
        (("a", "b=-1"), "a - b"),
    ],
)
def test_known_yaml_values(value: Any, canonical: str) -> None:
    assert str(Mix.from_yaml_value(value)) == canonical


def test_a_mix_cannot_be_changed_and_is_hashable() -> None:
    mix = Mix.parse("2 a")
    assert len({mix, Mix((Term(2, "a"),))}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        mix.terms[0].weight = 3.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "creative-writing -education",
            r"at character 18 there is no \+ or -.*a space on both sides.*names contain hyphens",
        ),
        ("creative-writing- education", r"at character 19 .*a space on both sides"),
        ('"a"- b', "at character 4 .*a space on both sides"),
        ("a -0.5 b", "at character 3 .*a space on both sides"),
        ("my file", "at character 4 .*double quotes"),
        ("a, b", "at character 2 .*other signs needs double quotes"),
        ("a + 3d-files", 'at character 5 there is no name.*"3d files"'),
        ("0.6b", "at character 1 there is no name"),
        ("0.5.safetensors", "at character 1 there is no name"),
        ("0.5 + a", "at character 5 there is a second sign"),
        ("*a", "at character 1 there is no name"),
        ("0.5", "at character 4 there is no name. Write for example"),
        ("a -", "at character 4 there is no name. Write for example"),
        ("a +  ", "at character 6 there is no name"),
        ('a + "b', "at character 5 a double quote is not closed"),
        ("a + -0.5 b", "at character 5 there is a second sign"),
        ("a - -b", "at character 5 there is a second sign.*hyphen in double quotes"),
        ("a ++ b", "at character 4 there is a second sign. Keep one"),
        ("a=", "at character 3 a needs exactly one number"),
        ("a=x", "at character 3 a needs exactly one number"),
        ("a=0.5- b", "at character 3 a needs exactly one number"),
        ("5 a=5", "at character 5 a needs exactly one number"),
        ("a + 0 b", "at character 5 .*weight 0.0 of 'b' is not a finite number other than 0.*leave the name out"),
        ("a - b=1e999", "at character 5 .*weight -inf of 'b'"),
        ('a + ""', "at character 5 .*'' cannot be a name"),
        ('"a\nb"', "at character 1 .*one line of text"),
        ('a + "a"', "names 'a' twice.*Name it once"),
        ("", "The mix is empty.*Pass for example"),
        ("  \n", "The mix is empty"),
    ],
)
def test_an_expression_that_cannot_be_read_says_where(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"(?s){message}"):
        Mix.parse(text)


@pytest.mark.parametrize("weight", [0, 0.0, -0.0, math.nan, math.inf, -math.inf, True, None, "much", 10**400])
def test_a_weight_is_finite_and_not_zero(weight: Any) -> None:
    with pytest.raises(InputError, match="of 'a' is not a finite number other than 0"):
        Term(weight, "a")


@pytest.mark.parametrize("name", ["", " ", 'a"b', "a\nb", "a\n", 2024, None])
def test_a_name_is_one_line_without_double_quotes(name: Any) -> None:
    with pytest.raises(InputError, match=r"cannot be a name in a mix.*Quote or rename it"):
        Term(1.0, name)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "None is not a mix. Pass text"),
        (3, "3 is not a mix"),
        (["a", 2], "is not a mix.*list of NAME=WEIGHT"),
        ([{"a": 1}], "is not a mix"),
        ({}, "The mix is empty"),
        ([], "The mix is empty"),
        (["a", ""], "The mix is empty"),
        ({"a": None}, "weight None of 'a'"),
        ({2024: 1}, "2024 cannot be a name"),
        (["a=1", "a=2"], "names 'a' twice"),
    ],
)
def test_other_yaml_values_are_refused(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mix.from_yaml_value(value)


def test_a_mix_of_files_is_told_from_a_path(tmp_path: Path) -> None:
    for text in ("0.6 a.safetensors + 0.4 b", "a - b/c.safetensors", "0.5 a", "-0.5*a", '0.6 "owner/name@v1" + b'):
        assert Mix.of_files(Path(text)) == Mix.parse(text)
    for text in ("out/model", "owner/name@v1+cu", "3d-files", "a+b.safetensors", "my plan.safetensors", "0.5"):
        assert Mix.of_files(Path(text)) is None
    there = tmp_path / "a + b.safetensors"
    there.touch()
    assert Mix.of_files(there) is None
    with pytest.raises(InputError, match="twice"):
        Mix.of_files(Path("0.6 a + 0.4 a"))
