"""The token view in the terminal says what the page's says."""

import io

from rich.console import Console

from burnish.cli.token_view import token_tables
from burnish.explaining.facts import ShadedAnswers, ShadedToken

ANSWERS = (
    ShadedAnswers(
        "Describe [bold]dusk[/bold].",
        (ShadedToken("Grey ", 0.0, 0.0), ShadedToken("[red]sea[/red]", -2.0, -1.0)),
        (ShadedToken("Amber ", 2.0, 1.0), ShadedToken("light\x1b[31m", 0.1, 0.0)),
    ),
)


def printed(**settings: object) -> str:
    out = io.StringIO()
    console = Console(file=out, width=100, **settings)  # type: ignore[arg-type]
    for table in token_tables(ANSWERS):
        console.print(table)
    return out.getvalue()


def test_prompts_and_answers_stay_text() -> None:
    text = printed()
    assert "Describe [bold]dusk[/bold]." in text
    assert "[red]sea[/red]" in text
    assert "\x1b" not in text


def test_likelier_tokens_are_underlined_and_less_likely_ones_slanted_also_without_colours() -> None:
    for settings in ({"color_system": "truecolor"}, {"no_color": True, "color_system": "truecolor"}):
        text = printed(force_terminal=True, **settings)
        amber = text[: text.index("Amber")].rpartition("\x1b[")[2]
        sea = text[: text.index("[red]sea")].rpartition("\x1b[")[2]
        assert "4" in amber.rstrip("m").split(";")
        assert "3" in sea.rstrip("m").split(";")
        assert ("48" in amber) is ("no_color" not in settings)
