"""The page in an output folder, and its figures in the folder's model card."""

import re
from pathlib import Path

from burnish.artifacts.card import CARD, card_text
from burnish.artifacts.files import written
from burnish.explaining.drawing import AnyChart, chart_png, chart_title
from burnish.explaining.facts import Explanation
from burnish.explaining.figures import drawn
from burnish.explaining.formats import visible
from burnish.explaining.page import render_page
from burnish.explaining.summary import summarise

HOME = "burnish"  # sub-folder of an output folder
BEGIN, END = "<!-- burnish: figures -->\n", "<!-- burnish: end of figures -->\n"
BEFORE = "## Undo\n"
IN_CARD = ("separation-1", "separation-2", "doses", "gains")  # the figures that say most


def publish(facts: Explanation, folder: Path) -> Path:
    """Writes the page and its figures into an output folder and shows them in its card; those made before are replaced.

    Returns the page. Raises OutputError, DiskFullError.
    """
    page = folder / HOME / "page.html"
    with written(page, overwrite=True) as partial:
        partial.write_text(render_page(facts), encoding="utf-8")
    shown = {name: chart for name, chart in drawn(facts).items() if name in IN_CARD}
    for name, chart in shown.items():
        with written(folder / HOME / f"{name}.png", overwrite=True) as partial:
            partial.write_bytes(chart_png(chart))
    card = folder / CARD
    text = card_text(folder) or ""
    with written(card, overwrite=True) as partial:
        partial.write_text(with_section(text, _section(facts, shown)), encoding="utf-8")
    return page


def with_section(card: str, section: str) -> str:
    """The card with the section in the place of an older one, else before its last part, else at its end."""
    card = re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}\n?", "", card, flags=re.DOTALL)
    before, mark, after = card.partition(BEFORE)
    return f"{before.rstrip()}\n\n{BEGIN}{section}{END}\n{mark}{after}".lstrip()


def _section(facts: Explanation, shown: dict[str, AnyChart]) -> str:
    pictures = "".join(f"![{_plain(chart_title(chart))}]({HOME}/{name}.png)\n\n" for name, chart in shown.items())
    verdict = _plain(summarise(facts).verdict)
    return f"## In pictures\n\n{verdict} Everything else is on the enclosed page, `{HOME}/page.html`.\n\n{pictures}"


def _plain(text: str) -> str:
    """Text that Markdown does not read as anything else."""
    return re.sub(r"([\\`*_\[\]<>#|!])", r"\\\1", visible(text, 500))
