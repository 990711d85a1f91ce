"""The page of learnt directions: answers side by side, what each direction writes and when it acts, effect and cost."""

from burnish.explaining.facts import Acting
from burnish.explaining.page import page_environment
from burnish.explaining.palette import PALETTE
from burnish.learning.learning import Learned


def render_learned(learned: Learned, acting: Acting | None) -> str:
    """The whole page as one self-contained HTML document, without scripts or network."""
    return (
        page_environment()
        .get_template("learned.html.jinja")
        .render(
            learned=learned,
            acting=acting,
            palette=PALETTE,
            title=" + ".join(t.name for t in learned.taught),
        )
    )
