"""Text that came from prompts, models and files, and numbers, made fit for reading."""

import re
from math import floor, log10

LONGEST = 2000  # characters of one piece of text
# Characters that are invisible, that turn text around, or that no HTML or XML file may hold.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff" + r"\ud800-\udfff]"
)
DELETE, DELETE_SIGN, SIGNS = 0x7F, "\u2421", 0x2400  # Unicode's pictures of control characters


def visible(text: str, longest: int = LONGEST, *, returns: bool = False) -> str:
    """Untrusted text without surprises: control characters, directional overrides and lone surrogates become visible signs.

    New lines and tabs are kept; with `returns` every new line is a return sign. What is longer than `longest` characters is
    cut, and the cut says how much is missing. Markup is left as it is: escaping belongs to the page.
    """
    cut = text[:longest]
    if len(text) > longest:
        cut += f"... ({len(text) - longest:,} more characters)"
    shown = _HIDDEN.sub(_sign, cut)
    return shown.replace("\n", "↵") if returns else shown


def label(text: str, longest: int = 28) -> str:
    """A short name for an axis or a legend, on one line. A long one loses its middle: names that differ often do so at the end."""
    shown = visible(" ".join(text.split()), len(text))
    if len(shown) <= longest:
        return shown
    end = (longest - 1) // 2
    return f"{shown[: longest - 1 - end]}…{shown[-end:]}"


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(SIGNS + code)
    return DELETE_SIGN if code == DELETE else f"\\u{code:04x}"


def number(value: float, *, digits: int = 3, signed: bool = False) -> str:
    """Significant digits without an exponent, at most five decimals: 0.0104, 1.25, 1,234."""
    decimals = min(5, max(0, digits - 1 - floor(log10(abs(value))))) if value else 0
    return f"{value:{'+' if signed else ''},.{decimals}f}"


def percent(share: float) -> str:
    """A share as a percentage, with a decimal where it is small: 98 %, 5 %, 1.3 %."""
    return f"{100 * share:.{0 if abs(share) >= 0.1 else 1}f}".removesuffix(".0") + " %"


def column(values: list[float]) -> list[str]:
    """Numbers of one table column with the same number of decimals, four significant digits for the largest."""
    largest = max((abs(v) for v in values), default=0.0)
    decimals = min(4, max(0, 3 - floor(log10(largest)))) if largest else 0
    return [f"{v:,.{decimals}f}" for v in values]
