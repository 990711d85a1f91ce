"""Tokens become text piece by piece: whole characters only, and nothing of a stop string."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BROKEN = "\N{REPLACEMENT CHARACTER}"  # what a decoder writes for bytes that are no character, or not yet


class Detokenizer:
    """The text that each token adds. The pieces joined are the decoded answer without a character that was cut off at its end.

    A piece is what the tokens since the last but one piece decode to, beyond what those before it do: the context of one piece is
    enough for decoders that treat the beginning of a text in their own way, and the cost of a token does not grow with the text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._context = 0  # tokens before this one are no longer looked at
        self._shown = 0  # tokens before this one are in earlier pieces

    def add(self, token: int) -> str:
        """ "" while bytes of the last character are missing."""
        self._tokens.append(token)
        before = self._decoded(self._tokens[self._context : self._shown])
        text = self._decoded(self._tokens[self._context :])
        if text.endswith(BROKEN) or len(text) <= len(before):
            return ""
        self._context, self._shown = self._shown, len(self._tokens)
        return text[len(before) :]

    def rest(self) -> str:
        """What an answer that ends here still has to show: complete characters in front of one that was cut off."""
        before = self._decoded(self._tokens[self._context : self._shown])
        return self._decoded(self._tokens[self._context :]).rstrip(BROKEN)[len(before) :]

    def _decoded(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class StopStrings:
    """Lets text through up to the first stop string; holds back what could be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.reached = False

    def add(self, text: str) -> str:
        """The text that may be shown now."""
        if self.reached:
            return ""
        held = self._held + text
        ends = [place for stop in self._stops if (place := held.find(stop)) >= 0]
        if ends:
            self.reached, self._held = True, ""
            return held[: min(ends)]
        held_back = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - held_back :]
        return held[: len(held) - held_back]

    def rest(self) -> str:
        """What was held back in an answer that ends here."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of the text that begin the stop string."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


@dataclass(frozen=True)
class TokenText:
    """A token of an answer: the text it completed, which is empty for the first bytes of a character."""

    text: str
    log_probability: float
