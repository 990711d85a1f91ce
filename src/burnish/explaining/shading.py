"""Answers shaded token by token: background for the projection, line below for the change of probability."""

from collections.abc import Sequence
from dataclasses import dataclass

from burnish.explaining.facts import ShadedAnswers, ShadedToken
from burnish.explaining.formats import number, visible

LEVELS = 4
ANSWERS_SHOWN, TOKENS_SHOWN = 12, 400
FULL = 0.95  # of the tokens are shaded less than fully


@dataclass(frozen=True)
class Shade:
    """One token: its text, CSS classes for the two shadings, and both numbers in words."""

    text: str
    classes: str
    said: str


@dataclass(frozen=True)
class ShadedPair:
    prompt: str
    base: tuple[Shade, ...]
    enhanced: tuple[Shade, ...]
    left_out: int  # tokens of the longer answer beyond what is shown


@dataclass(frozen=True)
class Shading:
    """All answers with the sizes at which a shade is full, and how many prompts are not shown."""

    pairs: tuple[ShadedPair, ...]
    full_projection: float
    full_change: float
    left_out: int


def shading(answers: Sequence[ShadedAnswers]) -> Shading:
    """The answers in shades that can be compared with each other: the scale is common to all."""
    kept = answers[:ANSWERS_SHOWN]
    tokens = [t for a in kept for t in (*a.base, *a.enhanced)]
    projection = _full([t.projection for t in tokens])
    change = _full([t.change for t in tokens])

    def shades(row: Sequence[ShadedToken]) -> tuple[Shade, ...]:
        return tuple(_shade(t, projection, change) for t in row[:TOKENS_SHOWN] if t.text)

    pairs = tuple(
        ShadedPair(
            a.prompt,
            shades(a.base),
            shades(a.enhanced),
            max(0, len(a.base) - TOKENS_SHOWN, len(a.enhanced) - TOKENS_SHOWN),
        )
        for a in kept
    )
    return Shading(pairs, projection, change, len(answers) - len(kept))


def _full(values: list[float]) -> float:
    """The size that all but a few tokens stay below, so that one outlier does not pale the others."""
    sizes = sorted(abs(v) for v in values)
    return (sizes[int(FULL * (len(sizes) - 1))] if sizes else 0.0) or 1.0


def _shade(token: ShadedToken, projection: float, change: float) -> Shade:
    return Shade(
        visible(token.text, 200, returns=True).replace("↵", "↵\n"),  # the sign, and the new line itself
        f"t {_level(token.projection / projection, 'pn')} {_level(token.change / change, 'ud')}",
        f"projection {number(token.projection, signed=True)}, log probability {number(token.change, signed=True)}",
    )


def _level(value: float, signs: str) -> str:
    """p4: four steps above zero; n1: one below."""
    return f"{signs[value < 0]}{min(LEVELS, round(abs(value) * LEVELS))}"
