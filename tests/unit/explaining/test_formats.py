"""Untrusted text is shown, never obeyed."""

import pytest

from burnish.explaining.formats import column, label, number, percent, visible


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        ("\x00", "\u2400"),
        ("\x1b[31m", "\u241b[31m"),
        ("\r", "\u240d"),
        ("\x7f", "\u2421"),
        ("\x85", "\\u0085"),
        ("\u202e", "\\u202e"),
        ("\u2066", "\\u2066"),
        ("\ud800", "\\ud800"),
        ("\udfff", "\\udfff"),
        ("\ufeff", "\\ufeff"),
        ("\uffff", "\\uffff"),
    ],
)
def test_what_cannot_be_seen_becomes_a_sign(hidden: str, shown: str) -> None:
    assert visible(f"a{hidden}b") == f"a{shown}b"


@pytest.mark.parametrize("text", ["a\nb\tc", "<b>&amp;</b>", "{{ 7 * 7 }}", "שלום مرحبا", "👩‍🚀🏳️‍🌈", "漢字"])
def test_what_can_be_seen_is_left_alone(text: str) -> None:
    assert visible(text) == text


def test_new_lines_become_return_signs_where_asked() -> None:
    assert visible("a\n\nb", returns=True) == "a↵↵b"


def test_a_long_text_says_how_much_is_missing_and_every_text_can_be_encoded() -> None:
    assert visible("x" * 100_000, 10) == "x" * 10 + "... (99,990 more characters)"
    assert visible("x" * 10, 10) == "x" * 10
    everything = "".join(map(chr, range(0x10000)))
    visible(everything, len(everything)).encode("utf-8")


def test_a_label_is_a_short_single_line() -> None:
    assert len(label("a name that is much longer than any axis allows")) == 28
    assert [label(text) for text in ("b\nc", "short")] == ["b c", "short"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.0104, "0.0104"), (1.25, "1.25"), (-12.34, "-12.3"), (1234.5, "1,234"), (1e-9, "0.00000")]
)  # fmt: skip
def test_numbers_have_three_significant_digits_and_no_exponent(value: float, text: str) -> None:
    assert number(value) == text


def test_signs_percentages_and_columns() -> None:
    assert number(0.5, digits=2, signed=True) == "+0.50"
    assert [percent(s) for s in (0.0, 0.013, 0.05, 0.98, 1.0)] == ["0 %", "1.3 %", "5 %", "98 %", "100 %"]
    assert column([0.5, 12.0, 0.25]) == ["0.50", "12.00", "0.25"]
    assert column([]) == []
