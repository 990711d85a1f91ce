"""How charts look, and their way into a page (SVG), a model card (PNG) and a table.

Colours are CSS variables, so that one SVG serves light and dark; the page defines them from `PALETTE`. Every series differs from the
others in shape, dash or fill too.
"""

import textwrap
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import altair as alt

from burnish.explaining.formats import column, visible
from burnish.explaining.palette import PALETTE

AnyChart = alt.Chart | alt.LayerChart

SERIES = ("accent", "second", "third", "fourth", "fifth", "sixth")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [10, 2], [4, 1, 1, 1])
WIDTH, HEIGHT = 420, 230
TITLE_LETTERS = 56  # a line of a title in a picture
# Text is measured here and drawn by a browser elsewhere: fonts of the same widths on every system.
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
FRAMES = ("background", "foreground")  # of every group, and never seen here
SCALE = 2  # pixels of a picture per unit of a chart


def ink(name: str) -> str:
    """A colour of the palette as a CSS variable."""
    return f"var(--{name})"


CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "padding": 4,
    "numberFormat": ".3~f",
    "view": {"stroke": None},
    "title": {"anchor": "start", "color": ink("ink"), "fontSize": 13, "fontWeight": 600, "lineHeight": 17, "offset": 8},
    "axis": {
        "labelColor": ink("muted"),
        "titleColor": ink("muted"),
        "labelFontSize": 11,
        "titleFontSize": 11.5,
        "titleFontWeight": "normal",
        "gridColor": ink("grid"),
        "domainColor": ink("line"),
        "tickColor": ink("line"),
        "labelOverlap": "parity",
        "labelSeparation": 3,
    },
    "axisX": {"grid": False, "labelAngle": 0},
    "axisY": {"domain": False, "ticks": False},
    "legend": {
        "orient": "top",
        "direction": "horizontal",
        "title": None,
        "labelColor": ink("ink"),
        "labelFontSize": 11.5,
        "labelLimit": 400,
        "symbolSize": 70,
        "symbolBaseStrokeColor": ink("muted"),
        "columnPadding": 14,
    },
    "text": {"fontSize": 11, "fill": ink("ink")},
}


@dataclass(frozen=True)
class Table:
    """What a chart shows, in words and numbers. The first column names the row."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]  # by column


def finished(
    chart: AnyChart,
    rows: list[dict[str, Any]],
    title: str,
    description: str,
    *,
    height: int = HEIGHT,
) -> AnyChart:
    """A chart with its title, the sentence read out in its place, and its size.

    rows: what it was drawn from, kept for its table.
    """
    return chart.properties(
        title=title,
        description=description,
        width=WIDTH,
        height=height,
        autosize=alt.AutoSizeParams(type="fit", contains="padding"),
        usermeta={"rows": rows},
    )


def chart_svg(chart: AnyChart, name: str) -> str:
    """The chart without its title as an <svg> element for an HTML page. name: a prefix that makes ids unique on the page."""
    import vl_convert

    spec = _spec(chart)
    spec.pop("title")
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(spec))
    for group in list(root.iter()):
        for unseen in [e for e in group if e.get("class") in FRAMES or e.get("opacity") == "0"]:
            group.remove(unseen)
    ids = [e.attrib["id"] for e in root.iter() if "id" in e.attrib]
    for element in root.iter():
        _simplify(element, {old: f"{name}-{i}" for i, old in enumerate(ids)})
    view = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"viewBox": view, "role": "img", "aria-label": str(spec["description"])})
    return ElementTree.tostring(root, encoding="unicode")


def chart_png(chart: AnyChart) -> bytes:
    """The chart as a picture with the palette's light colours in place of the variables."""
    import vl_convert

    spec = _spec(chart)
    spec["title"] = textwrap.wrap(spec["title"], TITLE_LETTERS)
    spec["config"] = {**CONFIG, "background": ink("paper")}
    colours = {ink(name): light for name, (light, _) in PALETTE.items()}
    return vl_convert.vegalite_to_png(_recoloured(spec, colours), scale=SCALE)


def chart_title(chart: AnyChart) -> str:
    return str(chart.title)


def chart_table(chart: AnyChart) -> Table:
    """The rows a chart was drawn from: its numbers and nothing else."""
    rows: list[dict[str, Any]] = chart.usermeta["rows"]
    headers = tuple(dict.fromkeys(key for row in rows for key in row))
    columns, numeric = [], []
    for index, header in enumerate(headers):
        cells = [row.get(header) for row in rows]
        floats = [c for c in cells if isinstance(c, float)]
        formatted = iter(column(floats))
        columns.append([next(formatted) if isinstance(c, float) else _cell(c) for c in cells])
        numeric.append(index > 0 and all(isinstance(c, int | float | None) for c in cells))
    return Table(headers, tuple(zip(*columns, strict=True)), tuple(numeric))


def _cell(value: object) -> str:
    return "" if value is None else visible(str(value), 200)


def _spec(chart: AnyChart) -> dict[str, Any]:
    spec = {**chart.to_dict(validate=False), "config": CONFIG}
    spec.pop("usermeta")
    return spec


def _recoloured(value: Any, colours: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _recoloured(part, colours) for key, part in value.items()}
    if isinstance(value, list):
        return [_recoloured(part, colours) for part in value]
    return colours.get(value, value) if isinstance(value, str) else value


def _simplify(element: ElementTree.Element, ids: dict[str, str]) -> None:
    """Plain names, ids of the page, a title on hovering instead of a label."""
    element.tag = element.tag.rpartition("}")[2]  # inline SVG needs no namespace
    words = element.get("aria-label")
    if words is not None and element.tag != "g" and not list(element):
        title = ElementTree.SubElement(element, "title")
        title.text = words
    for key, value in list(element.attrib.items()):
        if (
            key.startswith("aria-")
            or key in ("role", "font-family", "pointer-events", "stroke-miterlimit", "version")
            or (key == "class" and "role-mark" not in value)
        ):
            del element.attrib[key]
        elif key == "id":
            element.set(key, ids[value])
        elif value.startswith("url(#"):
            element.set(key, f"url(#{ids[value[5:-1]]})")
