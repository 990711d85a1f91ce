"""The packaged languages: a folder each, with everyday prompts, neutral prose, word lists, and how refusals open."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import yaml

from burnish.errors import InputError

ROOT = files("burnish.languages")
DEFAULT = "en"
MOST = 0.5  # share of texts in a script from which they are in its language


@dataclass(frozen=True)
class Language:
    """What a folder says. Its lists are those of `words.yaml`."""

    code: str
    name: str  # as it calls itself
    general: str  # name of its everyday prompts
    title: str  # of them
    refusals: tuple[str, ...]  # how they open
    script: str = ""  # a class of letters that texts in no other packaged language have
    stems: bool = False  # entries of lists are stems, which stand inside words

    @property
    def folder(self) -> Traversable:
        return ROOT / self.code

    def words(self, name: str) -> tuple[str, ...]:
        """A word list; empty where the language has none of that name."""
        return tuple(yaml.safe_load((self.folder / "words.yaml").read_text(encoding="utf-8")).get(name, ()))

    def share(self, texts: Sequence[str]) -> float:
        """Of the texts that hold a letter of its script."""
        return sum(bool(self.script and re.search(self.script, text)) for text in texts) / max(1, len(texts))


@cache
def languages() -> dict[str, Language]:
    """By code, sorted."""
    codes = sorted(path.name for path in ROOT.iterdir() if (path / "language.yaml").is_file())
    return {code: _read(code) for code in codes}


def _read(code: str) -> Language:
    about = yaml.safe_load((ROOT / code / "language.yaml").read_text(encoding="utf-8"))
    return Language(code=code, **{**about, "refusals": tuple(about["refusals"])})


def load_language(code: str) -> Language:
    """Raises InputError for one that is not packaged."""
    if code not in languages():
        raise InputError(
            f"There is no packaged general set in '{code}', only in {' and '.join(languages())}. Pass --normal with a file of your own."
        )
    return languages()[code]


def language_of(texts: Sequence[str]) -> str:
    """The code of the language that most texts are written in, as far as its script tells; English otherwise."""
    return next((code for code, language in languages().items() if language.share(texts) > MOST), DEFAULT)
