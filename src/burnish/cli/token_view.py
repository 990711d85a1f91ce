"""The token view in the terminal: what the page shows with backgrounds and lines, in rich's styles."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from burnish.explaining.facts import ShadedAnswers
from burnish.explaining.shading import Shade, shading

# Black on a light ground reads on dark and light terminals alike; without colours the lines and slants remain.
GROUNDS = {
    "p2": "black on #d9e7f7",
    "p3": "black on #abcbee",
    "p4": "black on #7fb0e6",
    "n2": "black on #f7e3d7",
    "n3": "black on #f0c5aa",
    "n4": "black on #e6a77d",
}
CHANGES = {
    "u2": "underline",
    "u3": "underline",
    "u4": "bold underline",
    "d2": "italic",
    "d3": "italic",
    "d4": "dim italic",
}
LEGEND = (
    "Ground: projection of the token on the direction (blue above, orange below zero). Underlined: the edit made the token likelier; "
    "slanted: less likely."
)


def token_tables(answers: Sequence[ShadedAnswers]) -> list[Table]:
    """One table a prompt, base beside enhanced, every token in the style of its two shades."""
    tables = []
    for pair in shading(answers).pairs:
        table = Table(title=Text(f"> {pair.prompt}"), title_justify="left", expand=True)
        table.add_column("base", ratio=1, overflow="fold")
        table.add_column("enhanced", ratio=1, overflow="fold")
        table.add_row(_text(pair.base), _text(pair.enhanced))
        tables.append(table)
    return tables


def _text(shades: Sequence[Shade]) -> Text:
    found = Text()
    for shade in shades:
        _, ground, change = shade.classes.split()
        found.append(shade.text.replace("↵", ""), " ".join((GROUNDS.get(ground, ""), CHANGES.get(change, ""))).strip())
    return found
