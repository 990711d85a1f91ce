"""One HTML page without scripts or links: the summary first, then every chart with a word on how to read it and its numbers."""

import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from burnish.checking import FINE, TOO_MUCH
from burnish.evaluation.effect import word_of
from burnish.evaluation.evaluation_tables import KINDS
from burnish.evaluation.text_statistics import STATISTICS
from burnish.explaining.facts import Explanation
from burnish.explaining.formats import number, percent, visible
from burnish.explaining.palette import PALETTE
from burnish.explaining.summary import cost_of, damage_text, effects_of, summarise
from burnish.extras import require
from burnish.maths.intervals import Interval

# What stands in the place of a part that has no facts.
MISSING = {
    "tokens": "The direction was not read as tokens.",
    "likenesses": "This direction was not compared with packaged domains and style axes. Leave out `--skip-likenesses` to compare it.",
    "acting": "Every gain is zero, so none of them acts.",
    "says": "Learnt directions differ from layer to layer: each is read as tokens above, beside the prompts on which it acts.",
    "gains": "Every gain is zero: no layer is edited.",
    "attribution": "Which layers carry the effect was not measured. Pass `--domain NAME`: it brings the good answers that "
    "the effect is measured on.",
    "answers": "No answers were generated. Pass `--answers 4` to see answers of base and enhanced.",
    "effect": "The effect on good answers was not measured. Pass `--numbers` with the evaluation.json of `burnish evaluate`.",
    "statistics": "Generated answers were not counted. Pass `--numbers` with the evaluation.json of `burnish evaluate`.",
    "dose": "Other strengths were not tried. Leave out `--doses 0` to measure them.",
    "damage": "What the edit disturbs was not measured. Pass `--numbers` with the evaluation.json of `burnish evaluate`.",
}


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
    """The whole page as one self-contained HTML document.

    Args:
        facts: what `explain` returns.

    Returns:
        The page; the same facts give the same text.

    Raises:
        MissingExtraError: the libraries that draw charts (the `report` extra) are not installed.
    """
    require("report", "A page with charts")
    from burnish.explaining import figures

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
        directions=[figures.direction_view(d, f"d{i + 1}") for i, d in enumerate(facts.contrasts)],
        where=figures.where(facts),
        effects=[(name, effect, word_of(effect)) for name, effect in effects],
        cost=cost_of(facts),
        bounds=(FINE, TOO_MUCH),
        kinds=KINDS,
        brought=figures.brought(facts),
        definitions=_definitions(facts),
    )


def _definitions(facts: Explanation) -> list[tuple[str, str]]:
    listed = facts.evaluation.statistics if facts.evaluation else ()
    return [(s.name, STATISTICS[s.name].definition) for s in listed if s.name in STATISTICS]


def _prose(sentence: str) -> Markup:
    """A sentence whose commands, between backticks, are set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))


def _signed(value: float, digits: int = 3) -> str:
    return number(value, signed=True, digits=digits)


def _digits(value: float, decimals: int = 2) -> str:
    return f"{value:,.{decimals}f}"


def _interval(value: Interval) -> str:
    return value.short
