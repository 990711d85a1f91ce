"""Simple statistics of generated answers. Each states its rule; none needs a model.

English word lists match whole words, Korean ones match stems inside the eojeol. Both are always tried: a list is silent on
a text in the other language. The lists are in `words/`.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from burnish.errors import InputError

TTR_FLOOR = 0.72  # MTLD's factor size: McCarthy and Jarvis (2010)
DISTINCT_WORDS = 100  # words that distinct-2 looks at
REPEATED = 4  # words in the n-grams of repetition
SUFFIXED_ADJECTIVE = 6  # fewest letters of an adjective known by its suffix
SUFFIXED_TERM = 7  # fewest letters of a technical term known by its suffix
LONG_TERM = 12  # letters that make any word a technical term
STEM = 2  # syllables of an eojeol that stand for its stem
BOTH = ("en", "ko")
ENGLISH = ("en",)

_WORD = re.compile(r"[^\W_]+(?:['\-][^\W_]+)*")
_HANGUL = re.compile(r"[\uac00-\ud7a3]")
_SENTENCE_END = re.compile(r"(?<=[.!?…。！？])[\"'”’»)\]」』]*\s+|\n+")
_FINAL = re.compile(r"[.!?…。！？][\"'”’»)\]」』*_]*\Z")
_BULLET = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+(?=\S)", re.MULTILINE)
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+\S.*$", re.MULTILINE)
_STEP = re.compile(r"^[ \t]*[#*_ ]*(?:\d{1,3}[.)][ \t]|step[ \t]+\d|\d+단계)", re.MULTILINE | re.IGNORECASE)
_FENCE = re.compile(r"```(.*?)(?:```|\Z)", re.DOTALL)
_CODE = re.compile(_FENCE.pattern + r"|`([^`\n]+)`", re.DOTALL)
_QUOTED = re.compile(r"“([^”\n]+)”|\"([^\"\n]+)\"|「([^」\n]+)」|『([^』\n]+)』|«([^»\n]+)»|‘([^‘\n]+?)’(?!\w)")
_QUESTION = re.compile(r"[?？]+")
_CITATION = re.compile(
    r"\[\d+(?:\s*[,–-]\s*\d+)*\]|\([^()\n]*\b(?:19|20)\d\d[a-z]?\)|\bet al\b\.?(?:,?\s*\(?(?:19|20)\d\d\)?)?|\bdoi:|\bPMID\b"
)
_DAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_MONTH = (
    r"(?:january|february|march|april|may|june|july|august|september|october|november|december"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)"
)
_DUE = re.compile(
    rf"\b(?:by|before|due|until|on)\s+(?:the\s+)?(?:\d|(?:{_DAY}|{_MONTH}|today|tomorrow|noon|end|next)\b)", re.I
)
_OWNER = re.compile(r"@\w|\b[Oo]wner\b|^\W*(?!How|This|That|These|It|There|You)[A-Z]\w+ (?:to|will)\b")
_LABEL = re.compile(r"^\W*[A-Z][\w ]{1,20}(?::|\s[–—-]\s)")  # a name before the task


@dataclass(frozen=True)
class Statistic:
    """One number for a text. `measure` is pure, finite, and 0.0 for an empty text."""

    name: str
    definition: str
    languages: tuple[str, ...]
    measure: Callable[[str], float]


def measure(texts: Sequence[str], language: str, measures: Sequence[str]) -> dict[str, list[float]]:
    """Values by statistic, one a text, in the texts' order: those of `measures`, then those of every text.

    Statistics that do not exist in `language` are left out. Raises InputError for an unknown measure.
    """
    for name in measures:
        if name not in MEASURES:
            raise InputError(f"There is no measure '{name}'. Pass any of: {', '.join(sorted(MEASURES))}.")
    wanted = dict.fromkeys([n for m in measures for n in MEASURES[m]] + list(GENERAL))
    chosen = [STATISTICS[n] for n in wanted if language in STATISTICS[n].languages]
    return {s.name: [s.measure(text) for text in texts] for s in chosen}


# words, sentences, lists


def words(text: str) -> list[str]:
    """Lower-case words (English) or eojeols without punctuation (Korean); apostrophes and hyphens join."""
    return _WORD.findall(_plain(text).casefold())


def sentences(text: str) -> list[str]:
    """Pieces with a word in them, cut at final punctuation before a space and at line ends; list marks are dropped."""
    return [s for s in _SENTENCE_END.split(_BULLET.sub("", _plain(text))) if _WORD.search(s)]


def syllables(word: str) -> int:
    """Groups of vowels, less a silent final e; at least one. English."""
    groups = len(re.findall(r"[aeiouy]+", word))
    silent = re.search(r"[^aeiouy]e\Z", word) and not re.search(r"[^aeiouy]le\Z", word)
    return max(1, groups - bool(silent))


def _plain(text: str) -> str:
    """Composed characters (a Korean file may hold loose jamo) and straight apostrophes."""
    return re.sub(r"(?<=\w)’(?=\w)", "'", unicodedata.normalize("NFC", text))


def _without_code(text: str) -> str:
    return _FENCE.sub("", text)


@cache
def _list(language: str, name: str) -> tuple[str, ...]:
    file = files("burnish.evaluation") / "words" / f"{language}.yaml"
    return tuple(yaml.safe_load(file.read_text(encoding="utf-8")).get(name, ()))


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """Matches the entries in words joined by spaces; the longest entry first, a Korean eojeol at most once."""
    english = [
        " ".join(words(entry)) + r"\w*" * entry.endswith("*")
        for entry in sorted(_list("en", name), key=len, reverse=True)
    ]
    korean = [
        r"(?<!\S)" * entry.startswith("^") + " ".join(words(entry))
        for entry in sorted(_list("ko", name), key=len, reverse=True)
    ]
    sides = ([rf"\b(?:{'|'.join(english)})\b"] if english else []) + ([rf"(?:{'|'.join(korean)})\S*"] if korean else [])
    return re.compile("|".join(sides))


def _hits(name: str, text: str) -> int:
    return len(_pattern(name).findall(" ".join(words(text))))


def _per_hundred(count: float, text: str) -> float:
    return 100.0 * count / max(1, len(words(text)))


def _rate(name: str) -> Callable[[str], float]:
    return lambda text: _per_hundred(_hits(name, text), text)


def _rate_of(pattern: re.Pattern[str]) -> Callable[[str], float]:
    return lambda text: _per_hundred(len(pattern.findall(text)), text)


def _count(pattern: re.Pattern[str]) -> Callable[[str], float]:
    return lambda text: float(len(pattern.findall(_without_code(text))))


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


def distinct_2(text: str) -> float:
    pairs = _ngrams(words(text)[:DISTINCT_WORDS], 2)
    return len(set(pairs)) / max(1, len(pairs))


def repetition(text: str) -> float:
    grams = _ngrams(words(text), REPEATED)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _ngrams(tokens: list[str], size: int) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[i:] for i in range(size)), strict=False))


def _length(text: str) -> float:
    return float(len(words(text)))


def _sentence_length(text: str) -> float:
    lengths = [len(words(s)) for s in sentences(text)]
    return sum(lengths) / max(1, len(lengths))


# stories


def _adjectives(text: str) -> float:
    suffixes, listed, wrong = (_list("en", f) for f in ("adjective_suffixes", "adjective_words", "not_adjectives"))
    found = sum(
        word in listed or (len(word) >= SUFFIXED_ADJECTIVE and word.endswith(suffixes) and word not in wrong)
        for word in words(text)
    )
    return _per_hundred(found, text)


def names(text: str) -> set[str]:
    """Capitalised words that do not begin a sentence, a quotation or what follows a colon."""
    found = set()
    for sentence in sentences(_HEADING.sub("", _without_code(text))):
        for match in list(_WORD.finditer(sentence))[1:]:
            begins = sentence[match.start() - 1] in "\"“‘'「*_" or sentence[: match.start()].rstrip().endswith(":")
            word = match[0].removesuffix("'s")
            if (
                not begins
                and word[0].isupper()
                and not word.isupper()
                and word.casefold() not in _list("en", "not_names")
            ):
                found.add(word)
    return found


def _paragraphs(text: str) -> float:
    return float(sum(bool(_WORD.search(block)) for block in re.split(r"\n[ \t]*\n", text)))


# explanations


def reading_ease(text: str) -> float:
    """Flesch (1948): 206.835 - 1.015 words a sentence - 84.6 syllables a word."""
    tokens = words(text)
    if not tokens:
        return 0.0
    return 206.835 - 1.015 * _sentence_length(text) - 84.6 * sum(map(syllables, tokens)) / len(tokens)


@cache
def _unit_pattern() -> re.Pattern[str]:
    english, korean = (
        "|".join(map(re.escape, sorted(_list(language, "units"), key=len, reverse=True))) for language in BOTH
    )
    return re.compile(rf"[$€£¥₩]\s?\d|\d+(?:[.,]\d+)*[ \u00a0-]?(?:(?:{english})(?![A-Za-z])|(?:{korean}))")


def _units(text: str) -> float:
    return _per_hundred(len(_unit_pattern().findall(text)), text)


def _terms(text: str) -> float:
    suffixes = _list("en", "term_suffixes")
    found = sum(
        word.isascii()
        and word.isalpha()
        and (len(word) >= LONG_TERM or (len(word) >= SUFFIXED_TERM and word.endswith(suffixes)))
        for word in words(text)
    )
    return _per_hundred(found + _hits("terms", text), text)


# letters


def _greeting(text: str) -> float:
    lines = [line for line in map(words, text.splitlines()) if line][:3]
    return float(any(_pattern("greeting").search(" ".join(line[:3])) for line in lines))


def _sign_off(text: str) -> float:
    lines = [line for line in map(words, text.splitlines()) if line][-4:]
    return float(any(len(line) <= 4 and _pattern("sign_off").search(" ".join(line)) for line in lines))


def _action_items(text: str) -> float:
    plain = _without_code(text)
    items = [plain[m.end() :].split("\n", 1)[0] for m in _BULLET.finditer(plain)]
    return float(sum(map(_is_action, items)))


def _is_action(item: str) -> bool:
    if _DUE.search(item) or _OWNER.search(item) or any(entry in item for entry in _list("ko", "imperatives")):
        return True
    return any(_pattern("imperatives").match(" ".join(words(task))) for task in (item, _LABEL.sub("", item)))


BY_STEM = "from a list, per 100 words; in Korean by stem inside the eojeol."
_ALL = (
    Statistic("lexical-diversity", "Mean number of running words over which the share of different words stays at 0.72 or "
              "more (MTLD, both directions); in Korean, of eojeols cut to two syllables. Unsteady below 100 words.", BOTH, mtld),
    Statistic("distinct-2", f"Share of different word pairs among the pairs in the first {DISTINCT_WORDS} words.", BOTH, distinct_2),
    Statistic("repetition", f"Share of runs of {REPEATED} words that occurred before in the text.", BOTH, repetition),
    Statistic("stock-phrases", "Worn phrases of language models, " + BY_STEM, BOTH, _rate("stock")),
    Statistic("length", "Words; in Korean, eojeols.", BOTH, _length),
    Statistic("sentence-length", "Words a sentence; a line end also ends a sentence.", BOTH, _sentence_length),
    Statistic("sensory-words", "Words for what is seen, heard, smelt, tasted or touched and for concrete materials, "
              + BY_STEM, BOTH, _rate("sensory")),
    Statistic("adjectives", f"Words in a list of common adjectives, or of {SUFFIXED_ADJECTIVE} letters or more with an "
              "adjective's suffix such as -ous, -ful or -less, per 100 words; English only.", ENGLISH, _adjectives),
    Statistic("names", "Different capitalised words that do not begin a sentence or a quotation or follow a colon, "
              "without days, months and the like; English only.", ENGLISH, lambda text: float(len(names(text)))),
    Statistic("pronouns", "Personal pronouns and 'who', from a list, per 100 words; in Korean by form at the start of the "
              "eojeol.", BOTH, _rate("pronouns")),
    Statistic("interior-verbs", "Verbs of thought, feeling, will and memory, " + BY_STEM, BOTH, _rate("interior")),
    Statistic("quoted-share", "Share of characters inside quotation marks: straight double, curly, angled or corner marks.",
              BOTH, _share_inside(_QUOTED)),
    Statistic("quoted-turns", "Number of quotations.", BOTH, _count(_QUOTED)),
    Statistic("paragraphs", "Blocks of text between blank lines.", BOTH, _paragraphs),
    Statistic("connectives", "Connectives of time and cause, " + BY_STEM, BOTH, _rate("connectives")),
    Statistic("ending", "1 if the text ends with final punctuation, else 0.", BOTH,
              lambda text: float(bool(_FINAL.search(text.rstrip())))),
    Statistic("affect-words", "Words that name feelings or their plain signs, " + BY_STEM, BOTH, _rate("affect")),
    Statistic("definitions", "Phrases that define ('is a', 'means', 'refers to'), " + BY_STEM, BOTH, _rate("definitions")),
    Statistic("examples", "Phrases that open an example ('for example', 'such as', 'imagine'), " + BY_STEM, BOTH,
              _rate("examples")),
    Statistic("questions", "Question marks per 100 words, a run of them counted once.", BOTH, _rate_of(_QUESTION)),
    Statistic("steps", "Lines outside code that begin with a number and a dot or bracket, with 'Step' and a number, or with "
              "a number and '단계'.", BOTH, _count(_STEP)),
    Statistic("reading-ease", "Flesch reading ease with syllables counted as groups of vowels; higher is easier; English "
              "only.", ENGLISH, reading_ease),
    Statistic("headings", "Markdown headings (#) outside code.", BOTH, _count(_HEADING)),
    Statistic("code-share", "Share of characters inside fenced code or backticks.", BOTH, _share_inside(_CODE)),
    Statistic("units", "Numbers with a unit or a currency per 100 words.", BOTH, _units),
    Statistic("greeting", "1 if one of the first three lines opens with a greeting, else 0.", BOTH, _greeting),
    Statistic("sign-off", "1 if one of the last four lines is a closing formula of at most four words, else 0.", BOTH, _sign_off),
    Statistic("action-items", "Bulleted or numbered lines outside code that begin with a task verb, name who does it or give "
              "a date; in Korean, that hold a task word from a list.", BOTH, _action_items),
    Statistic("courtesy", "Words of courtesy, " + BY_STEM, BOTH, _rate("courtesy")),
    Statistic("hedges", "Words and phrases that limit a claim ('may', 'suggests'), " + BY_STEM, BOTH, _rate("hedges")),
    Statistic("terms", f"Technical words by their form per 100 words: {LONG_TERM} letters or more, or {SUFFIXED_TERM} or more "
              "with a suffix such as -itis or -ology; in Korean, stems from a list.", BOTH, _terms),
    Statistic("citations", "Marks that look like a citation ([3], (Lee, 2019), et al., doi:) per 100 words; whether the "
              "source exists is not checked.", BOTH, _rate_of(_CITATION)),
)  # fmt: skip

STATISTICS: dict[str, Statistic] = {s.name: s for s in _ALL}
GENERAL: tuple[str, ...] = ("lexical-diversity", "distinct-2", "repetition", "stock-phrases", "length")
MEASURES: dict[str, tuple[str, ...]] = {
    "description": ("sensory-words", "adjectives"),
    "character": ("names", "pronouns", "interior-verbs"),
    "dialogue": ("quoted-share", "quoted-turns"),
    "structure": ("paragraphs", "connectives", "ending"),
    "emotion": ("affect-words",),
    "definitions": ("definitions",),
    "examples": ("examples",),
    "questions": ("questions",),
    "steps": ("steps",),
    "readability": ("reading-ease",),
    "headings": ("headings",),
    "code": ("code-share",),
    "units": ("units",),
    "greeting": ("greeting", "sign-off"),
    "action-items": ("action-items",),
    "tone": ("courtesy",),
    "length": ("length", "sentence-length"),
    "hedges": ("hedges",),
    "terms": ("terms",),
    "citations": ("citations",),
}
