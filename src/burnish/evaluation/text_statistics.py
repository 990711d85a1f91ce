"""Simple statistics of generated answers. Each states its rule; none needs a model.

English word lists match whole words, Korean ones match stems inside the eojeol. All languages are always tried: a list is silent
on a text in another. The lists are in `languages/`.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from burnish.checking import repetition
from burnish.errors import InputError
from burnish.languages import languages

TTR_FLOOR = 0.72  # MTLD's factor size: McCarthy and Jarvis (2010)
REPEATED = 4  # words in the n-grams of repetition
STEM = 2  # syllables of an eojeol that stand for its stem

_WORD = re.compile(r"[^\W_]+(?:['\-][^\W_]+)*")
_HANGUL = re.compile(r"[\uac00-\ud7a3]")
_STEP = re.compile(r"^[ \t]*[#*_ ]*(?:\d{1,3}[.)][ \t]|step[ \t]+\d|\d+단계)", re.MULTILINE | re.IGNORECASE)
_FENCE = re.compile(r"```(.*?)(?:```|\Z)", re.DOTALL)
_CODE = re.compile(_FENCE.pattern + r"|`([^`\n]+)`", re.DOTALL)
_QUOTED = re.compile(r"“([^”\n]+)”|\"([^\"\n]+)\"|「([^」\n]+)」|『([^』\n]+)』|«([^»\n]+)»|‘([^‘\n]+?)’(?!\w)")


@dataclass(frozen=True)
class Statistic:
    """One number for a text. `measure` is pure, finite, and 0.0 for an empty text."""

    name: str
    definition: str
    measure: Callable[[str], float]


def measure(texts: Sequence[str], measures: Sequence[str]) -> dict[str, list[float]]:
    """Values by statistic, one a text, in the texts' order: those of `measures`, then those of every text.

    Raises InputError for an unknown measure.
    """
    for name in measures:
        if name not in STATISTICS:
            raise InputError(f"There is no measure '{name}'. Pass any of: {', '.join(sorted(STATISTICS))}.")
    return {name: [STATISTICS[name].measure(text) for text in texts] for name in dict.fromkeys([*measures, *GENERAL])}


# words and lists


def words(text: str) -> list[str]:
    """Lower-case words (English) or eojeols without punctuation (Korean); apostrophes and hyphens join."""
    return _WORD.findall(_plain(text).casefold())


def _plain(text: str) -> str:
    """Composed characters (a Korean file may hold loose jamo) and straight apostrophes."""
    return re.sub(r"(?<=\w)’(?=\w)", "'", unicodedata.normalize("NFC", text))


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """Matches the entries in words joined by spaces; the longest entry first, a word around a stem at most once."""
    parts = []
    for language in languages().values():
        entries = sorted(language.words(name), key=len, reverse=True)
        if entries and language.stems:
            stems = (r"(?<!\S)" * entry.startswith("^") + " ".join(words(entry)) for entry in entries)
            parts.append(rf"(?:{'|'.join(stems)})\S*")
        elif entries:
            texts = (" ".join(words(entry)) + r"\w*" * entry.endswith("*") for entry in entries)
            parts.append(rf"\b(?:{'|'.join(texts)})\b")
    return re.compile("|".join(parts))


def _hits(name: str, text: str) -> int:
    return len(_pattern(name).findall(" ".join(words(text))))


def _per_hundred(count: float, text: str) -> float:
    return 100.0 * count / max(1, len(words(text)))


def _rate(name: str) -> Callable[[str], float]:
    return lambda text: _per_hundred(_hits(name, text), text)


def _share_inside(pattern: re.Pattern[str]) -> Callable[[str], float]:
    return lambda text: sum(len(m[m.lastindex or 0]) for m in pattern.finditer(text)) / max(1, len(text))


# every text


def mtld(text: str) -> float:
    """Measure of textual lexical diversity (McCarthy and Jarvis 2010), mean of both directions.

    Korean particles make almost every eojeol new, so eojeols are cut to their first two syllables. A text without any
    repetition has no factor; it counts as if its last word were one.
    """
    forward = [word[:STEM] if _HANGUL.match(word) else word for word in words(text)]
    return (_mtld(forward) + _mtld(forward[::-1])) / 2


def _mtld(tokens: list[str]) -> float:
    factors, seen, count = 0.0, set[str](), 0
    for token in tokens:
        seen.add(token)
        count += 1
        if len(seen) / count < TTR_FLOOR:
            factors, seen, count = factors + 1, set(), 0
    if count:
        factors += (1 - len(seen) / count) / (1 - TTR_FLOOR)
    return len(tokens) / (factors or 1 / max(1, count) / (1 - TTR_FLOOR))


def _length(text: str) -> float:
    return float(len(words(text)))


def _repetition(text: str) -> float:
    return repetition([words(text)], REPEATED)


def _steps(text: str) -> float:
    return float(len(_STEP.findall(_FENCE.sub("", text))))


BY_STEM = "from a list, per 100 words; in Korean by stem inside the eojeol."
_ALL = (
    Statistic("lexical-diversity", "Mean number of running words over which the share of different words stays at 0.72 or "
              "more (MTLD, both directions); in Korean, of eojeols cut to two syllables. Unsteady below 100 words.", mtld),
    Statistic("repetition", f"Share of runs of {REPEATED} words that occurred before in the text.", _repetition),
    Statistic("stock-phrases", "Worn phrases of language models, " + BY_STEM, _rate("stock")),
    Statistic("length", "Words; in Korean, eojeols.", _length),
    Statistic("sensory-words", "Words for what is seen, heard, smelt, tasted or touched and for concrete materials, "
              + BY_STEM, _rate("sensory")),
    Statistic("quoted-share", "Share of characters inside quotation marks: straight double, curly, angled or corner marks.",
              _share_inside(_QUOTED)),
    Statistic("examples", "Phrases that open an example ('for example', 'such as', 'imagine'), " + BY_STEM, _rate("examples")),
    Statistic("steps", "Lines outside code that begin with a number and a dot or bracket, with 'Step' and a number, or with "
              "a number and '단계'.", _steps),
    Statistic("code-share", "Share of characters inside fenced code or backticks.", _share_inside(_CODE)),
    Statistic("courtesy", "Words of courtesy, " + BY_STEM, _rate("courtesy")),
    Statistic("hedges", "Words and phrases that limit a claim ('may', 'suggests'), " + BY_STEM, _rate("hedges")),
)  # fmt: skip

STATISTICS: dict[str, Statistic] = {s.name: s for s in _ALL}
GENERAL: tuple[str, ...] = ("lexical-diversity", "repetition", "stock-phrases", "length")
