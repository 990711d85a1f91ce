"""The short check after every enhancement: how far general answers moved, and whether they repeat."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from burnish.artifacts.direction import Enhancement
from burnish.model.model import Model
from burnish.prompts import PromptSet

CHECK_TOKENS = 32
# Above this many nats per token general answers visibly change on small models (dose curve: 0.04 is factor 1.5 in the upper
# layers, still readable; 0.16-0.2 is the published setting on SmolLM2, which breaks).
FINE, TOO_MUCH = 0.05, 0.15


@dataclass(frozen=True)
class Check:
    """Disturbance of general prompts, in nats per token over the base model's own greedy continuation."""

    prompts: int
    tokens: int
    kl_mean: float
    kl_p95: float
    top1_flips: float  # share of tokens whose most likely successor changed
    repetition_base: float  # share of repeated 4-grams in greedy answers
    repetition_enhanced: float

    @property
    def verdict(self) -> str:
        """Plain words: fine, or what to lower."""
        if self.repetition_enhanced > self.repetition_base + 0.15:
            return "too strong: answers repeat themselves. Lower the factor, or edit fewer layers (--layers 60%..)."
        if self.kl_mean > TOO_MUCH:
            return f"too strong: general answers moved by {self.kl_mean:.3f} nats per token. Halve the factor, or use --layers 60%.."
        if self.kl_mean > FINE:
            return f"noticeable: general answers moved by {self.kl_mean:.3f} nats per token. Read the samples; a lower factor is safer."
        return f"fine: general answers moved by {self.kl_mean:.4f} nats per token."

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


def check(
    model: Model,
    enhancement: Enhancement,
    prompts: PromptSet,
    *,
    tokens: int = CHECK_TOKENS,
    batch: int = 8,
    progress: Callable[[str, int, int], None] | None = None,
) -> Check:
    """KL(base || enhanced) per token on `prompts`, and repetition of greedy answers of base and enhanced."""
    rendered = [model.tokens(p) for p in prompts.prompts]
    base_answers: list[list[int]] = []
    enhanced_answers: list[list[int]] = []
    divergences: list[Tensor] = []
    flips: list[Tensor] = []
    for start in range(0, len(rendered), batch):
        part = rendered[start : start + batch]
        answers = model.continuations(part, tokens)
        kept = [(p, a) for p, a in zip(part, answers, strict=True) if a]
        base_answers += answers
        base = answer_log_probabilities(model, kept)
        with model.enhanced(enhancement):
            enhanced = answer_log_probabilities(model, kept)
            enhanced_answers += model.continuations(part, tokens)
        for p, q in zip(base, enhanced, strict=True):
            divergences.append(kl_per_token(p, q))
            flips.append((p.argmax(-1) != q.argmax(-1)).double())
        if progress is not None:
            progress("checking general prompts", min(start + batch, len(rendered)), len(rendered))
    kl, flipped = torch.cat(divergences), torch.cat(flips)
    return Check(
        prompts=len(rendered),
        tokens=len(kl),
        kl_mean=float(kl.mean()),
        kl_p95=float(kl.quantile(0.95)),
        top1_flips=float(flipped.mean()),
        repetition_base=repetition(base_answers),
        repetition_enhanced=repetition(enhanced_answers),
    )


@torch.inference_mode()
def answer_log_probabilities(model: Model, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Tensor]:
    """Log probabilities [answer tokens, vocabulary], float32, of the model before each token of each answer."""
    if not pairs:
        return []
    width = max(len(p) + len(a) for p, a in pairs)
    ids = torch.zeros(len(pairs), width, dtype=torch.long)
    for row, (prompt, answer) in enumerate(pairs):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
    longest = width - min(len(p) for p, _ in pairs) + 1
    logits: Tensor = model.network(input_ids=ids.to(model.device), use_cache=False, logits_to_keep=longest).logits
    offset = width - longest
    return [
        logits[row, len(prompt) - 1 - offset : len(prompt) - 1 - offset + len(answer)].float().log_softmax(-1).cpu()
        for row, (prompt, answer) in enumerate(pairs)
    ]


def kl_per_token(base: Tensor, other: Tensor) -> Tensor:
    """KL(base || other) per row of two tables of log probabilities [tokens, vocabulary], float64 [tokens]."""
    p, q = base.double(), other.double()
    return (p.exp() * (p - q)).sum(-1).clamp_min(0)


def repetition(answers: Sequence[Sequence[int]], n: int = 4) -> float:
    """Mean over the answers of the share of n-grams that occurred before in the same answer."""
    shares = []
    for answer in answers:
        grams = [tuple(answer[i : i + n]) for i in range(len(answer) - n + 1)]
        if grams:
            shares.append(1 - len(set(grams)) / len(grams))
    return sum(shares) / len(shares) if shares else 0.0
