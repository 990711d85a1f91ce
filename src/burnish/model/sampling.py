"""The next token of each row of a batch, from its own settings and its own random numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from burnish.errors import InputError
from burnish.model.device import widest

NUCLEUS = (
    256  # most likely tokens looked at first when `top_p` cuts; all are sorted only where these do not hold the mass
)


@dataclass(frozen=True)
class Sampling:
    """How one request picks its tokens. Raises InputError for values out of range."""

    temperature: float = 0.0  # 0 takes the most likely token
    top_p: float = 1.0  # the smallest set of most likely tokens that holds this mass (Holtzman et al. 2019, nucleus)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, fits, allowed in (
            ("temperature", self.temperature, 0 <= self.temperature < math.inf, "0 (greedy) or above"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("seed", self.seed, 0 <= self.seed < 2**63, "from 0 to 2^63 - 1"),
        ):
            if not fits:
                raise InputError(f"The {name} of a request is {value}, which is out of range. Pass one {allowed}.")


@dataclass(frozen=True)
class Choice:
    """A token for each row."""

    tokens: list[int]
    log_probabilities: list[float]  # at temperature 1 and with nothing cut; empty where not asked for
    finite: list[bool]  # False where the row's logits are no numbers and its token means nothing


def choose(
    logits: Tensor, sampling: Sequence[tuple[Sampling, torch.Generator]], *, log_probabilities: bool = False
) -> Choice:
    """The next token of every row. logits: [rows, vocabulary]; the generators are on the CPU."""
    exact = logits.float()
    best, likely = exact.max(-1)  # NaN where any logit is NaN
    finite = best.isfinite().tolist()
    tokens = likely.tolist()
    for row, (settings, generator) in enumerate(sampling):
        if settings.temperature and finite[row]:
            tokens[row] = _draw(exact[row], settings, generator)
    scores: list[float] = []
    if log_probabilities:
        taken = exact.gather(1, torch.tensor(tokens, device=exact.device)[:, None])[:, 0]
        scores = (taken - exact.logsumexp(-1)).tolist()
    return Choice(tokens, scores, finite)


def _draw(logits: Tensor, settings: Sampling, generator: torch.Generator) -> int:
    """One token by inverting the distribution function, which takes one random number. Tokens stay in the vocabulary's
    order, so that rounding, which differs with the size of a batch, moves a boundary and never swaps two tokens."""
    weights = ((logits.to(widest(logits.device)) - logits.max()) / settings.temperature).softmax(-1)
    if settings.top_p < 1:
        weights = torch.where(weights >= _least(weights, settings.top_p), weights, 0.0)
    bounds = weights.cumsum(-1)
    point = torch.rand((), generator=generator, dtype=torch.float64).item() * bounds[-1]
    # The first bound above the point belongs to a token with a weight above zero; `point` may round up to the last bound.
    index = int(torch.searchsorted(bounds, point, right=True))
    return index if index < len(bounds) else int(weights.argmax())


def _least(weights: Tensor, mass: float) -> Tensor:
    """The weight of the last token needed for a mass; weights sum to 1."""
    top = weights.topk(min(NUCLEUS, len(weights))).values
    if len(top) < len(weights) and top.sum() < mass:
        top = weights.sort(descending=True).values
    needed = int((top.cumsum(-1) < mass).sum())
    return top[min(needed, len(top) - 1)]
