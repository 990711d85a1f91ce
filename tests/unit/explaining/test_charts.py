"""Laws of every chart, and what some of them show."""

import re
from typing import Any
from xml.etree import ElementTree

import altair as alt
import pytest

from burnish.explaining import chart_parts, charts
from burnish.explaining.drawing import (
    AnyChart,
    chart_png,
    chart_svg,
    chart_table,
    chart_title,
    finished,
    ink,
)
from burnish.explaining.figures import drawn
from burnish.explaining.palette import PALETTE
from explaining_example import direction, doses, full

FULL = full()
FIRST = FULL.directions[0]
DRAWN: dict[str, AnyChart] = {**drawn(FULL), "damage-alone": charts.dose_curve(doses(answers=0))}
HOSTILE = "<b>a.b[0]'\"\\\x00\u202e\ud800 {{x}} " + "y" * 100_000


def it_is_valid_and_says_what_to_see(chart: AnyChart, svg: ElementTree.Element) -> None:
    chart.to_dict()  # raises where it is no Vega-Lite
    assert len(chart_title(chart)) > 20
    assert str(chart.description).endswith(".")


def its_svg_scales_and_is_read_out_as_one_sentence(chart: AnyChart, svg: ElementTree.Element) -> None:
    assert set(svg.attrib) == {"viewBox", "role", "aria-label"}
    assert svg.attrib["role"] == "img" and svg.attrib["aria-label"] == chart.description


def every_mark_says_its_values(chart: AnyChart, svg: ElementTree.Element) -> None:
    titles = [e.text or "" for e in svg.iter("title")]
    assert titles and all(re.search(r"\d", t) for t in titles)
    assert sum(1 for e in svg.iter() if "role-mark" in e.get("class", "")) > 0


def axis_titles(spec: Any) -> set[str]:
    """Titles of all x and y encodings in a specification."""
    if isinstance(spec, list):
        return set().union(*map(axis_titles, spec))
    if not isinstance(spec, dict):
        return set()
    titles = {
        spec[axis]["title"] for axis in ("x", "y") if isinstance(spec.get(axis), dict) and spec[axis].get("title")
    }
    return titles.union(*map(axis_titles, spec.values()))


def its_axes_have_titles_that_are_drawn(chart: AnyChart, svg: ElementTree.Element) -> None:
    titles = axis_titles(chart.to_dict())
    assert titles and titles <= {e.text for e in svg.iter("text")}


def every_colour_is_one_of_the_palette(chart: AnyChart, svg: ElementTree.Element) -> None:
    used = {e.get(k) for e in svg.iter() for k in ("fill", "stroke")} - {None, "none", "transparent"}
    assert used <= {ink(colour) for colour in PALETTE}


def its_table_has_a_row_for_all_that_is_drawn(chart: AnyChart, svg: ElementTree.Element) -> None:
    table = chart_table(chart)
    assert table.rows and all(len(row) == len(table.headers) == len(table.numeric) for row in table.rows)
    assert any(table.numeric)


LAWS = (
    it_is_valid_and_says_what_to_see,
    its_svg_scales_and_is_read_out_as_one_sentence,
    every_mark_says_its_values,
    its_axes_have_titles_that_are_drawn,
    every_colour_is_one_of_the_palette,
    its_table_has_a_row_for_all_that_is_drawn,
)


@pytest.mark.parametrize("name", DRAWN)
def test_a_chart_keeps_the_laws_of_charts(name: str) -> None:
    drawing = ElementTree.fromstring(chart_svg(DRAWN[name], name))
    for law in LAWS:
        law(DRAWN[name], drawing)


def test_a_picture_has_real_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    import vl_convert

    specs: list[str] = []
    png = vl_convert.vegalite_to_png
    monkeypatch.setattr(vl_convert, "vegalite_to_png", lambda spec, **k: specs.append(str(spec)) or png(spec, **k))
    assert chart_png(DRAWN["separation-1"]).startswith(b"\x89PNG\r\n")
    assert "var(" not in specs[0] and PALETTE["paper"][0] in specs[0]


def test_ids_carry_the_charts_name_and_are_counted_from_zero() -> None:
    rows: list[dict[str, Any]] = [{"x": 1.0, "y": 2.0}]
    clipped = chart_parts.data(rows).mark_line(clip=True, color=ink("accent")).encode(x=alt.X("x:Q"), y=alt.Y("y:Q"))
    chart = finished(clipped, rows, "A chart with a clip path", "One point.")
    first, second, again = (chart_svg(chart, name) for name in ("one", "two", "one"))
    assert re.findall(r' id="([^"]+)"', first) == re.findall(r"url\(#([^)]+)\)", first) == ["one-0"]
    assert 'id="two-0"' in second
    assert first == again


def test_series_differ_in_shape_and_dash_as_well_as_in_colour() -> None:
    look = chart_parts.in_series(list("abcdef"))
    for channel in look.values():
        values = channel.to_dict()["scale"]["range"]
        assert len({str(v) for v in values}) == len(values) == 6


def test_a_long_legend_is_broken_into_columns() -> None:
    assert chart_parts.legend_columns(["a", "b"]) == 0
    assert chart_parts.legend_columns(["a" * 28, "b" * 28, "c" * 20]) == 1
    assert chart_parts.legend_columns(["a" * 20] * 3) == 2


def test_hostile_names_are_drawn_as_text() -> None:
    facts = direction(HOSTILE, HOSTILE, 1)
    svg = chart_svg(charts.gains(full(directions=(facts, facts))), "hostile")
    assert "<b>" not in svg and "&lt;b&gt;" in svg
    assert len(svg) < 60_000
    svg.encode("utf-8")
