"""How far other answers moved: the one definition of nats per token."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from burnish.maths.intervals import Interval, interval
from burnish.model.scoring import TokenScores


@dataclass(frozen=True)
class Divergence:
    """KL(base || enhanced) over answers, nats per token."""

    prompts: int
    tokens: int
    kl: Interval  # over prompts, of each prompt's mean per token
    kl_p95: float  # over tokens
    kl_rms: float
    kl_max: float
    top1_flips: float  # share of tokens whose most likely successor changed


def divergence(scores: Sequence[TokenScores], *, seed: int = 0) -> Divergence:
    """From one candidate's scores."""
    kl = torch.cat([s.kl for s in scores])
    return Divergence(
        prompts=len(scores),
        tokens=len(kl),
        kl=interval(prompt_kl(scores), seed=seed),
        kl_p95=float(kl.quantile(0.95)),
        kl_rms=float(kl.square().mean().sqrt()),
        kl_max=float(kl.max()),
        top1_flips=float(torch.cat([s.flipped for s in scores]).double().mean()),
    )


def prompt_kl(scores: Sequence[TokenScores]) -> Tensor:
    """Each prompt's mean over its answer's tokens, nats, [prompts]: their mean is the damage, whatever the answers' lengths."""
    return torch.stack([s.kl.mean() for s in scores])
