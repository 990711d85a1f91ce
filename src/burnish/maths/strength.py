"""How strong an edit may be: the largest strength whose measured load is at most 1."""

from collections.abc import Sequence
from itertools import takewhile
from math import exp, inf, log

CLOSE = 0.04  # of the limit, which a strength may leave unused
ROUNDS = 6  # measurements of an edit
GROWTH = 8.0  # what one measurement may lead the next away
NOTHING = 1e-9  # of the limit: no strength of such an edit would reach it


def largest_within(strengths: Sequence[float], loads: Sequence[float], most: float | None = None) -> float:
    """The largest strength whose load is at most 1, straight between measured points on logarithmic axes.

    Args:
        strengths: multiples of the gains that were measured, rising, above 0.
        loads: use of the tightest bound at each; 1 is the limit. A load that falls again is not believed.
        most: the largest strength there is; by default the largest that was measured.

    Returns:
        At most `most`. Outside the measured strengths the load is taken to change as the square of the strength, which a
        divergence does near zero.
    """
    logs = [log(max(load, 1e-12)) for load in loads]
    above = next((i for i, load in enumerate(logs) if load > 0), None)
    if above is None:
        most = strengths[-1] if most is None else most
        return min(most, strengths[-1] * min(GROWTH, exp(-logs[-1] / 2)))
    slope = 2.0
    if above:
        slope = (logs[above] - logs[above - 1]) / log(strengths[above] / strengths[above - 1])
    return strengths[above] * exp(-logs[above] / max(slope, 1e-3))


class Search:
    """The largest strength of each of several edits whose measured load is at most 1.

    While `asked` names edits, measure each at its strength, all in one pass, and `tell` the loads in that order. An edit is done when
    its load is at most `CLOSE` below the limit, when it keeps the limit at `most`, when it moves nothing, and after `ROUNDS` measurements.
    """

    def __init__(self, starts: Sequence[float], most: float = inf) -> None:
        """starts: the first strength of each edit to measure, above 0; most: the largest strength there is."""
        self.asked = dict(enumerate(starts))
        self._most = most
        self._measured: list[dict[float, float]] = [{} for _ in starts]

    def tell(self, loads: Sequence[float]) -> None:
        """loads: use of the tightest bound by each edit that was asked for; 1 is the limit."""
        asked, self.asked = self.asked, {}
        for (edit, strength), load in zip(asked.items(), loads, strict=True):
            measured = self._measured[edit]
            measured[strength] = load
            if (strength == self._most and load <= 1) or load <= NOTHING or len(measured) == ROUNDS:
                continue
            if not any(1 - CLOSE <= other <= 1 for other in measured.values()):
                points = sorted(measured.items())
                aims = [other / (1 - CLOSE / 2) for _, other in points]
                self.asked[edit] = largest_within([point for point, _ in points], aims, self._most)

    @property
    def strengths(self) -> list[float]:
        """The largest measured strength of each edit below all that are beyond the limit; 0 where there is none."""
        within = (takewhile(lambda point: point[1] <= 1, sorted(measured.items())) for measured in self._measured)
        return [max((strength for strength, _ in points), default=0.0) for points in within]
