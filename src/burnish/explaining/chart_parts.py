"""Pieces that charts share: axes, series, lines over layers, maps with signs."""

from typing import Any

import altair as alt

from burnish.explaining.drawing import DASHES, SERIES, SHAPES, ink

LEGEND_LETTERS, SYMBOL = 62, 4  # letters in a line of the legend; what a symbol takes of them
LAYER = "layer"
# A second reading on top of a bar: it stands out from the bar's colour and from the paper.
DIAMOND: dict[str, Any] = {
    "shape": "diamond",
    "size": 46,
    "fill": ink("paper"),
    "stroke": ink("ink"),
    "strokeWidth": 1.4,
    "opacity": 1,
}


def layer_axis(title: str = "layer", count: int = 0) -> alt.X:
    """Layers on the horizontal axis: those in the data, or with `count` all of them."""
    axis = alt.Axis(labelExpr="datum.value < 0 ? 'emb.' : datum.value", ticks=False)
    return alt.X(
        "layer:O", title=title, axis=axis, scale=alt.Scale(domain=list(range(count))) if count else alt.Scale()
    )


def data(rows: list[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.Data(values=rows))  # type: ignore[no-untyped-call]


def in_series(names: list[str]) -> dict[str, Any]:
    """Colour, shape and dash for a few named series of the field `series`: each can be told apart without colour."""
    count, legend = len(names), alt.Legend(columns=legend_columns(names))

    def scale(kinds: Any) -> alt.Scale:
        return alt.Scale(domain=names, range=[kinds[i % len(kinds)] for i in range(count)])

    return {
        "color": alt.Color("series:N", scale=scale([ink(s) for s in SERIES]), legend=legend),
        "shape": alt.Shape("series:N", scale=scale(SHAPES), legend=legend),
        "strokeDash": alt.StrokeDash("series:N", scale=scale(DASHES), legend=legend),
    }


def legend_columns(names: list[str]) -> int:
    """How many names stand side by side above a chart; 0: all of them."""
    widths = [len(name) + SYMBOL for name in names]
    return 0 if sum(widths) <= LEGEND_LETTERS else max(1, LEGEND_LETTERS // max(widths))


def lines(rows: list[dict[str, Any]], names: list[str], y: alt.Y) -> alt.LayerChart:
    """One line with points for each of some columns of `rows`, over layers; y: of the field `value`."""
    look = in_series(names)
    folded = (
        data(rows).transform_fold([*names], as_=["series", "value"]).encode(x=layer_axis(), y=y, color=look["color"])
    )
    folded = folded.transform_calculate(
        words="'layer ' + datum.layer + ', ' + datum.series + ': ' + format(datum.value, '.3~f')"
    )
    drawn = folded.mark_line(aria=False, strokeWidth=1.6).encode(strokeDash=look["strokeDash"])
    points = folded.mark_point(filled=True, size=26, opacity=1)
    points = points.encode(shape=look["shape"], description=alt.Description("words:N"))
    return alt.LayerChart(layer=[drawn, points])


def chosen_rule(layer: int) -> alt.LayerChart:
    """A dotted line at the chosen layer."""
    at = data([{LAYER: layer}]).encode(x=layer_axis())
    words = at.mark_text(text=f"chosen: {layer}", align="left", dx=4, dy=-6, aria=False)
    rule = at.mark_rule(strokeDash=[1, 3], color=ink("ink"), aria=False)
    return alt.LayerChart(layer=[rule, words.encode(y=alt.value("height"))])


def zero_rule() -> alt.Chart:
    """The line of zero."""
    rule: alt.Chart = data([{}]).mark_rule(color=ink("line"), aria=False)
    return rule.encode(y=alt.datum(0))
