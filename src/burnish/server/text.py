"""Text of an answer without its stop strings."""

from collections.abc import Sequence
from dataclasses import dataclass


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
        kept = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - kept :]
        return held[: len(held) - kept]

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
