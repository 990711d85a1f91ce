"""How often something was right, with an interval that holds for few tries too."""

import math
from dataclasses import dataclass

Z95 = 1.959964


@dataclass(frozen=True)
class Accuracy:
    """A share of right predictions with Wilson's 95 % interval (1927)."""

    right: float  # a prediction that could not decide counts half
    asked: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.right / self.asked


def accuracy(right: float, asked: int) -> Accuracy:
    """asked: at least 1."""
    share, spare = right / asked, Z95**2 / asked
    centre = (share + spare / 2) / (1 + spare)
    reach = Z95 * math.sqrt(share * (1 - share) / asked + spare / (4 * asked)) / (1 + spare)
    return Accuracy(right, asked, max(0.0, centre - reach), min(1.0, centre + reach))
