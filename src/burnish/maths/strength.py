"""How strong an edit may be, from a few measured strengths."""

from collections.abc import Sequence
from math import exp, log


def largest_within(scales: Sequence[float], loads: Sequence[float]) -> float:
    """The largest scale whose load is at most 1, straight between measured points on logarithmic axes.

    Args:
        scales: multiples of the gains that were measured, rising, above 0.
        loads: use of the tightest bound at each; 1 is the limit.

    Returns:
        At most the largest scale. Below the smallest one the load is taken to fall as the square of the scale, which a
        divergence does near zero.
    """
    points = [(log(s), log(max(load, 1e-12))) for s, load in zip(scales, loads, strict=True)]
    if points[-1][1] <= 0:
        return scales[-1]
    above = next(i for i, (_, load) in enumerate(points) if all(later > 0 for _, later in points[i:]))
    x, y = points[above]
    slope = 2.0
    if above:
        left, low = points[above - 1]
        slope = max((y - low) / (x - left), 1e-3)
    return exp(x - y / slope)
