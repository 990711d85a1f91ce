"""The charts of a page with their titles and tables; they need the `report` extra."""

from dataclasses import dataclass

from markupsafe import Markup

from burnish.explaining import charts, effect_charts
from burnish.explaining.drawing import AnyChart, Table, chart_svg, chart_table, chart_title
from burnish.explaining.facts import DirectionFacts, Explanation, LayerTokens
from burnish.explaining.summary import effects_of


@dataclass(frozen=True)
class Figure:
    """A chart on the page: its id, what to see in it, the drawing, and its numbers."""

    name: str
    title: str
    svg: Markup
    table: Table


@dataclass(frozen=True)
class DirectionView:
    """One direction's part of the page. Empty tuples and None stand for parts without facts."""

    key: str
    facts: DirectionFacts
    separation: Figure
    likenesses: Figure | None
    tokens: LayerTokens | None  # of the chosen layer, or of the last where that one was not read
    other_tokens: tuple[LayerTokens, ...]


def figure(chart: AnyChart, name: str) -> Figure:
    """name: unique on the page."""
    return Figure(name, chart_title(chart), Markup(chart_svg(chart, name)), chart_table(chart))


def direction_view(facts: DirectionFacts, key: str) -> DirectionView:
    """key: unique on the page."""
    chosen = next((t for t in facts.tokens if t.layer == facts.layer), facts.tokens[-1] if facts.tokens else None)
    return DirectionView(
        key=key,
        facts=facts,
        separation=figure(charts.separation(facts), f"{key}-separation"),
        likenesses=figure(charts.likenesses(facts.likenesses), f"{key}-likenesses")
        if facts.likenesses is not None and facts.likenesses.named
        else None,
        tokens=chosen,
        other_tokens=tuple(t for t in facts.tokens if t is not chosen),
    )


def where(facts: Explanation) -> dict[str, Figure | None]:
    """Which layers are edited, and which carry the effect."""
    parts = facts.attribution
    return {
        "gains": figure(effect_charts.gains(facts), "gains") if facts.gains else None,
        "layers": figure(effect_charts.layer_parts(parts), "layer-parts") if parts and parts.layers else None,
    }


def brought(facts: Explanation) -> dict[str, Figure | None]:
    """What the edit does and what it costs."""
    effects, evaluation = effects_of(facts), facts.evaluation
    return {
        "effects": figure(effect_charts.effects(effects), "effects") if effects else None,
        "dose": figure(effect_charts.dose_curve(facts.dose), "dose") if facts.dose else None,
        "statistics": figure(effect_charts.statistics(evaluation), "statistics")
        if evaluation and evaluation.statistics
        else None,
    }
