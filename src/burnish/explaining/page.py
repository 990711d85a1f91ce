"""Pages without scripts or links. Of an explanation: the summary first, then every chart with a word on how to read it and its numbers."""

import re
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from burnish import __version__
from burnish.checking import FINE, TOO_MUCH
from burnish.evaluation.effect import word_of
from burnish.evaluation.evaluation_tables import KINDS
from burnish.evaluation.text_statistics import STATISTICS
from burnish.explaining.facts import Acting, Explanation
from burnish.explaining.formats import number, percent, visible
from burnish.explaining.palette import PALETTE
from burnish.explaining.summary import cost_of, damage_text, effects_of, summarise
from burnish.extras import require
from burnish.learning.learning import Learned

# The parts of a page by their ids.
SECTIONS = {
    "summary": "Summary",
    "direction": "The direction",
    "says": "What it says",
    "lives": "Where it lives",
    "answers": "Answers",
    "cost": "What it cost",
    "made": "How it was made",
}
LEARNED_SECTIONS = {
    "answers": "Answers",
    "effect": "Effect and cost",
    "directions": "The directions",
    "made": "How it was made",
}
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
    from burnish.explaining.figures import figures

    return _rendered(
        "page.html.jinja",
        SECTIONS,
        kind="explanation",
        title=facts.title,
        model=facts.model,
        facts=facts,
        summary=summarise(facts),
        missing=MISSING,
        figures=figures(facts),
        effects=[(name, effect, word_of(effect)) for name, effect in effects_of(facts)],
        cost=cost_of(facts),
        bounds=(FINE, TOO_MUCH),
        kinds=KINDS,
        definitions={name: statistic.definition for name, statistic in STATISTICS.items()},
    )


def render_learned(learned: Learned, acting: Acting | None) -> str:
    """The page of learnt directions, in one document as well: answers side by side, effect and cost, what each direction writes and when
    it acts."""
    return _rendered(
        "learned.html.jinja",
        LEARNED_SECTIONS,
        kind="learnt directions",
        title=" + ".join(t.name for t in learned.taught),
        model=learned.model,
        learned=learned,
        acting=acting,
    )


def _rendered(template: str, sections: Mapping[str, str], **values: object) -> str:
    """Everything is escaped, nothing may be undefined, texts of strangers are made fit for reading by `shown`."""
    environment = Environment(
        loader=PackageLoader("burnish.explaining", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown=visible, number=number, percent=percent, damage=damage_text, prose=_prose)
    listed = list(sections.items())
    return environment.get_template(template).render(sections=listed, palette=PALETTE, burnish=__version__, **values)


def _prose(sentence: str) -> Markup:
    """A sentence whose commands, between backticks, are set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))
