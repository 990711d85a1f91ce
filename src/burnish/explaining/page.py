"""One HTML page without scripts or links: the summary first, then every chart with a word on how to read it and its numbers."""

import re
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from burnish.checking import FINE, TOO_MUCH
from burnish.evaluation.evaluation_tables import KINDS, word_of
from burnish.evaluation.text_statistics import STATISTICS
from burnish.explaining import charts, effect_charts
from burnish.explaining.drawing import PALETTE, AnyChart, Table, chart_svg, chart_table, chart_title
from burnish.explaining.facts import DirectionFacts, Explanation, LayerTokens
from burnish.explaining.formats import number, percent, visible
from burnish.explaining.summary import cost_of, damage_text, effects_of, summarise
from burnish.maths.intervals import Interval

# What stands in the place of a part that has no facts.
MISSING = {
    "tokens": "The direction was not read as tokens.",
    "likenesses": "This direction was not compared with packaged domains and style axes. Leave out `--skip-likenesses` to compare it.",
    "gains": "Every gain is zero: no layer is edited.",
    "attribution": "Which layers carry the effect was not measured. Pass `--domain NAME`: it brings the good answers that "
    "the effect is measured on.",
    "answers": "No answers were generated. Pass `--answers 4` to see answers of base and enhanced.",
    "effect": "The effect on good answers was not measured. Pass `--numbers` with the evaluation.json of `burnish evaluate` or the "
    "tuning.json of `burnish tune`.",
    "statistics": "Generated answers were not counted. Pass `--numbers` with the evaluation.json of `burnish evaluate`.",
    "frontier": "Other strengths were not tried. Leave out `--doses 0` to measure them.",
    "damage": "What the edit disturbs was not measured. Pass `--numbers` with the evaluation.json of `burnish evaluate` or the "
    "tuning.json of `burnish tune`.",
}


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


def page_environment() -> Environment:
    """Templates of pages: everything is escaped, nothing may be undefined, texts of strangers are made fit for reading by `shown`."""
    environment = Environment(
        loader=PackageLoader("burnish.explaining", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = visible
    return environment


def render_page(facts: Explanation) -> str:
    """The whole page as one self-contained HTML document."""
    environment = page_environment()
    environment.filters.update(
        number=number,
        percent=percent,
        signed=_signed,
        interval=_interval,
        digits=_digits,
        damage=damage_text,
        prose=_prose,
    )
    effects = effects_of(facts)
    return environment.get_template("page.html.jinja").render(
        facts=facts,
        summary=summarise(facts),
        palette=PALETTE,
        missing=MISSING,
        directions=[_direction(d, f"d{i + 1}") for i, d in enumerate(facts.directions)],
        where=_where(facts),
        effects=[(name, effect, word_of(effect)) for name, effect in effects],
        cost=cost_of(facts),
        bounds=(FINE, TOO_MUCH),
        kinds=KINDS,
        brought=_brought(facts),
        definitions=_definitions(facts),
    )


def figure(chart: AnyChart, name: str) -> Figure:
    """name: unique on the page."""
    return Figure(name, chart_title(chart), Markup(chart_svg(chart, name)), chart_table(chart))


def _direction(facts: DirectionFacts, key: str) -> DirectionView:
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


def _where(facts: Explanation) -> dict[str, Figure | None]:
    attribution = facts.attribution
    return {
        "gains": figure(effect_charts.gains(facts), "gains") if facts.gains else None,
        "layers": figure(effect_charts.layer_parts(attribution), "layer-parts")
        if attribution and attribution.layers
        else None,
    }


def _brought(facts: Explanation) -> dict[str, Figure | None]:
    effects, tuned, evaluation = effects_of(facts), facts.tuned, facts.evaluation
    return {
        "effects": figure(effect_charts.effects(effects), "effects") if effects else None,
        "frontier": figure(effect_charts.frontier(tuned), "frontier") if tuned and tuned["frontier"] else None,
        "dose": figure(effect_charts.dose_curve(facts.dose), "dose") if facts.dose else None,
        "statistics": figure(effect_charts.statistics(evaluation), "statistics")
        if evaluation and evaluation["statistics"]
        else None,
    }


def _definitions(facts: Explanation) -> list[tuple[str, str]]:
    listed = facts.evaluation["statistics"] if facts.evaluation else ()
    return [(s["name"], STATISTICS[s["name"]].definition) for s in listed if s["name"] in STATISTICS]


def _prose(sentence: str) -> Markup:
    """A sentence whose commands, between backticks, are set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))


def _signed(value: float, digits: int = 3) -> str:
    return number(value, signed=True, digits=digits)


def _digits(value: float, decimals: int = 2) -> str:
    return f"{value:,.{decimals}f}"


def _interval(value: Interval | dict[str, Any]) -> str:
    return (value if isinstance(value, Interval) else Interval(**value)).short
