"""The charts of a page with their titles and tables; they need the `report` extra."""

from dataclasses import dataclass

from markupsafe import Markup

from burnish.explaining import charts
from burnish.explaining.drawing import AnyChart, Table, chart_svg, chart_table, chart_title
from burnish.explaining.facts import Explanation


@dataclass(frozen=True)
class Figure:
    """A chart on the page: its id, what to see in it, the drawing, and its numbers."""

    name: str
    title: str
    svg: Markup
    table: Table


def figures(facts: Explanation) -> dict[str, Figure]:
    """By their ids on the page: gains, layer-parts, dose and separation-1, -2, of each contrast direction; those with facts."""
    return {name: _figure(chart, name) for name, chart in drawn(facts).items()}


def drawn(facts: Explanation) -> dict[str, AnyChart]:
    """The charts of an explanation by name."""
    shown: dict[str, AnyChart] = {
        f"separation-{number}": charts.separation(direction) for number, direction in enumerate(facts.contrasts, 1)
    }
    if facts.gains:
        shown["gains"] = charts.gains(facts)
    if facts.attribution:
        shown["layer-parts"] = charts.layer_parts(facts.attribution)
    if facts.dose:
        shown["doses"] = charts.dose_curve(facts.dose)
    return shown


def _figure(chart: AnyChart, name: str) -> Figure:
    return Figure(name, chart_title(chart), Markup(chart_svg(chart, name)), chart_table(chart))
