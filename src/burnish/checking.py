"""The short check after every enhancement: how far general answers moved, and whether they repeat."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

from burnish.artifacts.direction import Enhancement
from burnish.model.divergence import divergence
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Item, TokenScores, score, score_prompts
from burnish.prompts import PromptSet
from burnish.steps import Progress, advancing

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
        return verdict_of(self.kl_mean, self.repetition_base, self.repetition_enhanced)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


def verdict_of(kl: float, repetition_base: float, repetition_enhanced: float) -> str:
    """Plain words for a damage: fine, or what to lower. kl: nats per token; repetition: shares of repeated 4-grams."""
    if repetition_enhanced > repetition_base + 0.15:
        return "too strong: answers repeat themselves. Lower the factor, or edit fewer layers (--layers 60%..)."
    if kl > TOO_MUCH:
        return f"too strong: general answers moved by {kl:.3f} nats per token. Halve the factor, or use --layers 60%.."
    if kl > FINE:
        return (
            f"noticeable: general answers moved by {kl:.3f} nats per token. Read the samples; a lower factor is safer."
        )
    return f"fine: general answers moved by {kl:.4f} nats per token."


def check(
    model: Model,
    enhancement: Enhancement,
    prompts: PromptSet,
    *,
    tokens: int = CHECK_TOKENS,
    progress: Progress | None = None,
) -> Check:
    """Measures what an enhancement disturbs: KL(base || enhanced) in nats per token, and repetition in greedy answers of both.

    Args:
        model: the base model; its weights are not changed.
        enhancement: made on this model.
        prompts: everyday prompts.
        tokens: of each answer.
        progress: told of every part that takes long.

    Returns:
        The numbers and a verdict in words.
    """
    items, base, enhanced = _answers(model, lambda: model.enhanced(enhancement), prompts, tokens, progress)
    scores = score(model, items, [Candidate("enhanced", enhancement)]).candidates[0]
    return _check(scores, base, enhanced)


def check_changed(
    model: Model,
    changed: Callable[[], AbstractContextManager[Any]],
    prompts: PromptSet,
    *,
    tokens: int = CHECK_TOKENS,
    progress: Progress | None = None,
) -> Check:
    """The same for any change of the model. changed: makes it for as long as it is entered."""
    items, base, others = _answers(model, changed, prompts, tokens, progress)
    return _check(score_prompts(model, items, items, changed).candidates[0], base, others)


def _answers(
    model: Model,
    changed: Callable[[], AbstractContextManager[Any]],
    prompts: PromptSet,
    tokens: int,
    progress: Progress | None,
) -> tuple[list[Item], list[list[int]], list[list[int]]]:
    """(the base model's answers to score, greedy answers of the base model, of the changed one)."""
    rendered = [model.tokens(p) for p in prompts.prompts]
    advance = advancing(progress, "checking general prompts", 2 * len(rendered))
    base = model.continuations(rendered, tokens, advance=advance)
    with changed():
        others = model.continuations(rendered, tokens, advance=advance)
    return [Item(prompt, answer) for prompt, answer in zip(rendered, base, strict=True) if answer], base, others


def _check(scores: Sequence[TokenScores], base: list[list[int]], enhanced: list[list[int]]) -> Check:
    moved = divergence(scores)
    return Check(
        len(base), moved.tokens, moved.kl.mean, moved.kl_p95, moved.top1_flips, repetition(base), repetition(enhanced)
    )


def repetition(answers: Sequence[Sequence[object]], n: int = 4) -> float:
    """Mean over the answers of the share of n-grams that occurred before in the same answer."""
    shares = []
    for answer in answers:
        grams = [tuple(answer[i : i + n]) for i in range(len(answer) - n + 1)]
        if grams:
            shares.append(1 - len(set(grams)) / len(grams))
    return sum(shares) / len(shares) if shares else 0.0
