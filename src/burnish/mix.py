"""Several specialities with weights as one expression, the same on every surface: 0.6 creative-writing - 0.2 verbose.

mix   = [sign] term { sign term }
term  = [weight ["*"]] name  |  name "=" [sign] weight
name  = letters, digits and - _ . / (not starting with a digit or a hyphen)  |  anything in "double quotes"
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from typing import Any

from burnish.errors import InputError

_SIGN = r"\+|(?<=\s)-(?=\s|$)"
_WEIGHT = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w./-])"  # 3d-files is neither a weight nor a bare name
_FILES = re.compile(rf"\s[-+]\s|\+\s|\s\+|^\s*-?\s*{_WEIGHT}[\s*]")  # what a mix of files has, and hardly any path
_BARE = r"(?![\d-]|\.\d)[\w./-]+"
_EMPTY = "The mix is empty: it names no speciality. Pass for example: 0.6 creative-writing + 0.4 education."
_NO_SIGN = (
    "there is no + or - between two terms. A minus needs a space on both sides, because names contain hyphens; "
    "a name with spaces or other signs needs double quotes."
)
_NO_NAME = 'there is no name. Put one that starts with a digit or a hyphen, or has other signs, in quotes: "3d files".'
_NO_NAME_BEFORE = {
    "": "there is no name. Write for example: 0.5 education.",
    '"': "a double quote is not closed. Close it behind the name.",
    "+": "there is a second sign. Keep one.",
    "-": "there is a second sign. Keep one, or put a name that starts with a hyphen in double quotes.",
}


@dataclass(frozen=True)
class Term:
    """A speciality's name (or file) and its weight. Raises InputError for a weight or a name that cannot be used."""

    weight: float
    name: str

    def __post_init__(self) -> None:
        text = self.name if isinstance(self.name, str) else ""  # YAML keys may be numbers
        if not text.strip() or '"' in text or text.splitlines() != [text]:
            raise InputError(
                f"{self.name!r} cannot be a name in a mix: a name is one line of text without double quotes. Quote or rename it."
            )
        try:
            weight = math.nan if isinstance(self.weight, bool) else float(self.weight)
        except (TypeError, ValueError, OverflowError):
            weight = math.nan
        if not math.isfinite(weight) or weight == 0:
            raise InputError(
                f"The weight {self.weight!r} of '{self.name}' is not a finite number other than 0. "
                "Pass for example 0.5, or leave the name out."
            )
        object.__setattr__(self, "weight", weight)  # YAML has whole numbers, and 1e-3 as text

    def __str__(self) -> str:
        number = "" if abs(self.weight) == 1 else repr(abs(self.weight)).removesuffix(".0") + " "
        name = self.name if re.fullmatch(_BARE, self.name) else f'"{self.name}"'
        return f"{'-' if self.weight < 0 else ''}{number}{name}"  # no space: YAML reads "- name" as a list


@dataclass(frozen=True)
class Mix:
    """Several specialities with weights; `str(mix)` is the canonical expression. InputError for no term or a name twice.

    Attributes:
        terms: in the order given.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise InputError(_EMPTY)
        names = [term.name for term in self.terms]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"The mix names '{name}' twice, so its weight is unclear. Name it once.")

    def __str__(self) -> str:
        first, *rest = map(str, self.terms)
        return first + "".join(f" - {text[1:]}" if text.startswith("-") else f" + {text}" for text in rest)

    @classmethod
    def parse(cls, text: str) -> "Mix":
        """Reads an expression.

        Args:
            text: such as `0.6 creative-writing + 0.4 education`.

        Returns:
            The mix.

        Raises:
            InputError: it cannot be read; the message names the character.
        """
        cursor = _Cursor(text)
        terms: list[Term] = []
        while cursor.take("$") is None:
            if cursor.take(_SIGN if terms else "[-+]?") is None:
                raise cursor.error(_NO_SIGN)
            terms.append(cursor.term())
        return cls(tuple(terms))

    @classmethod
    def of_files(cls, path: Path) -> "Mix | None":
        """Reads a mix that stands in the place of a path, `0.6 a.safetensors + 0.4 b.safetensors`.

        Args:
            path: what was given as a path.

        Returns:
            The mix; None where it is a path.

        Raises:
            InputError: the mix cannot be read.
        """
        return cls.parse(str(path)) if _FILES.search(str(path)) and not lexists(path) else None

    @classmethod
    def of(cls, entries: Iterable[str]) -> "Mix":
        """Reads NAME=WEIGHT entries, as repeated options give them; each may be an expression.

        Args:
            entries: texts.

        Returns:
            The mix of all of them.

        Raises:
            InputError: an entry cannot be read.
        """
        return cls(tuple(term for entry in entries for term in cls.parse(entry).terms))

    @classmethod
    def from_yaml_value(cls, value: Any) -> "Mix":
        """Reads a mix as a recipe holds it.

        Args:
            value: an expression, a mapping {name: weight} or a list of NAME=WEIGHT.

        Returns:
            The mix.

        Raises:
            InputError: the value is none of these, or cannot be read.
        """
        if isinstance(value, str):
            return cls.parse(value)
        if isinstance(value, Mapping):
            return cls(tuple(Term(weight, name) for name, weight in value.items()))
        if isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value):
            return cls.of(value)
        raise InputError(
            f"{value!r} is not a mix. Pass text (0.6 creative-writing + 0.4 education), "
            "a mapping of names to weights, or a list of NAME=WEIGHT."
        )

    def as_dict(self) -> dict[str, float]:
        """Names and weights.

        Returns:
            {name: weight}, in order.
        """
        return {term.name: term.weight for term in self.terms}


class _Cursor:
    """Walks through an expression, token by token."""

    def __init__(self, text: str) -> None:
        self.text, self.position, self.token = text, 0, ""

    def take(self, pattern: str) -> str | None:
        """The token here, if it is of this pattern; spaces before it are skipped."""
        match = re.compile(rf"\s*({pattern})").match(self.text, self.position)
        if match is None:
            return None
        self.position, self.token = match.end(), match[1]
        return self.token

    def term(self) -> Term:
        """The term behind the sign that was just taken. Raises InputError."""
        start, sign = self.position, -1 if self.token == "-" else 1
        before = self.take(_WEIGHT)
        if before:
            self.take(r"\*")
        name = self.take(rf'{_BARE}|"[^"]*"')
        if name is None:
            raise self.error(_NO_NAME_BEFORE.get(self.text[self.position :].lstrip()[:1], _NO_NAME))
        weight = before or "1"
        if self.take("="):
            weight = (not before and self.take("[-+]?" + _WEIGHT)) or ""
        if not weight:
            raise self.error(f"{name} needs exactly one number. Write for example education=0.5 or 0.5 education.")
        try:
            return Term(sign * float(weight), name.strip('"'))
        except InputError as error:
            self.position = start
            raise self.error(f"a term cannot be used. {error}") from None

    def error(self, why: str) -> InputError:
        character = len(self.text) - len(self.text[self.position :].lstrip()) + 1
        return InputError(f"The mix '{self.text}' cannot be read: at character {character} {why}")
