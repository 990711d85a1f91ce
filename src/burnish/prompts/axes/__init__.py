"""Packaged style axes: the same everyday prompts under opposite system prompts, so that only the style differs.

The direction of an axis in a model is mean(hidden state, positive system prompt) - mean(hidden state, negative one) at the last
prompt token: `find_direction(model, enhance=axis.positive, normal=axis.negative, held_out=(axis.held_positive, axis.held_negative))`.
Several wordings rotate over the prompts, and the held-out prompts have wordings of their own, so that no single one is measured.
Source: Chen et al., "Persona Vectors" (2025), who contrast opposite system prompts in the same way and average over answers instead.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from burnish.errors import InputError
from burnish.prompts.prompt_files import Prompt, PromptSet

ROOT = files("burnish.prompts.axes")


@dataclass(frozen=True)
class Axis:
    """A packaged style axis. Row i of a positive set and of its negative one hold the same words of the user."""

    name: str
    title: str
    language: str
    summary: str
    poles: tuple[str, str]  # what the positive and the negative side are called
    positive: PromptSet
    negative: PromptSet
    held_positive: PromptSet
    held_negative: PromptSet

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The system prompts (positive, negative) that rotate over the tuning prompts."""
        return _pairs(self.positive, self.negative)

    @property
    def held_out_pairs(self) -> list[tuple[str, str]]:
        """The system prompts (positive, negative) that rotate over the held-out prompts."""
        return _pairs(self.held_positive, self.held_negative)


def axis_names() -> list[str]:
    """Packaged axes, sorted."""
    return sorted(_table())


def load_axis(name: str) -> Axis:
    """Raises InputError for an unknown name."""
    if name not in axis_names():
        raise InputError(f"There is no packaged axis '{name}'. Pass one of: {', '.join(axis_names())}.")
    about = _table()[name]
    positive, negative = about["poles"]
    systems, held = (list(zip(*about[key], strict=True)) for key in ("pairs", "held_out_pairs"))
    return Axis(
        name=name,
        title=about["title"],
        language=about["language"],
        summary=about["summary"],
        poles=(positive, negative),
        positive=_under("prompts.txt", positive, systems[0]),
        negative=_under("prompts.txt", negative, systems[1]),
        held_positive=_under("held-out.txt", f"{positive} held-out", held[0]),
        held_negative=_under("held-out.txt", f"{negative} held-out", held[1]),
    )


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = yaml.safe_load((ROOT / "axes.yaml").read_text(encoding="utf-8"))
    return table


def _under(file: str, name: str, systems: tuple[str, ...]) -> PromptSet:
    """The file's prompts, each behind one of the system prompts in turn."""
    texts = (ROOT / file).read_text(encoding="utf-8").splitlines()
    turns = ((("system", systems[i % len(systems)]), ("user", text)) for i, text in enumerate(texts))
    return PromptSet(name, tuple(Prompt(turn) for turn in turns))


def _pairs(positive: PromptSet, negative: PromptSet) -> list[tuple[str, str]]:
    rows = zip(positive.prompts, negative.prompts, strict=True)
    return list(dict.fromkeys((p.messages[0][1], n.messages[0][1]) for p, n in rows))
