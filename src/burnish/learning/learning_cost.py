"""What learning will take, before it starts: tokens of a forward pass, and seconds on this machine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from burnish.learning import learning
from burnish.learning.descent import OWN_ROWS, OWN_SHARE
from burnish.learning.report import REFERENCE_TOKENS
from burnish.learning.subject import Subject, letters
from burnish.options import LearnOptions
from burnish.prompts import PromptSet

LETTERS_A_TOKEN = 4.0  # of English; a token of Korean has fewer letters, and its prompts have fewer too
TEMPLATE = 12  # tokens that a chat template adds to a prompt behind what all share
DECODED = 2.5  # forward tokens that a generated one costs: small products, and keys and values copied
REST = 1.6  # of matrix products' time: attention, norms, the softmax over the vocabulary
PROBE_S = 0.2  # seconds of matrix products that are timed
SIZE = 1024


@dataclass(frozen=True)
class LearningCost:
    """tokens: of a forward pass through the whole model."""

    tokens: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"about {self.tokens:,} tokens of a forward pass, {max(1, round(self.seconds / 60)):,} min on this machine"
        )


def learning_cost(
    subjects: Sequence[Subject], options: LearnOptions, parameters: int, dtype: torch.dtype = torch.float32
) -> LearningCost:
    """An estimate from the prompts' lengths, good to about a third.

    Args:
        subjects: what is learnt.
        options: steps and sizes.
        parameters: of the model; those of blocks and unembedding that a token meets.
        dtype: the number type that the model computes in.

    Returns:
        Tokens of a forward pass, a backward pass counted as another one, and seconds by the matrix products that this machine does.
    """
    asked = [_mean([s.questions for s in subjects]), _mean([s.held_out for s in subjects])]
    question, held = (size / LETTERS_A_TOKEN + TEMPLATE for size in asked)
    answers, calm = question + options.tokens, question + options.everyday_tokens
    spoken = OWN_SHARE * OWN_ROWS * options.rows * (question + learning.SAMPLED_TOKENS)
    taught = (1 - OWN_SHARE * OWN_ROWS) * options.rows * answers
    steps = 2 * options.steps * (taught + spoken + options.everyday_rows * calm)
    generated = (
        options.prompts * (question + DECODED * options.tokens)
        + (options.everyday + 2 * options.measured) * (question + DECODED * options.everyday_tokens)
        + learning.SAMPLED * (question + DECODED * learning.SAMPLED_TOKENS)
        + 2 * learning.READ * (held + DECODED * learning.READ_TOKENS)
        + 2 * learning.HARMFUL * (question + DECODED * learning.REFUSAL_TOKENS)
        + options.reported * (held + DECODED * options.tokens)
    )
    scored = (
        options.prompts * answers
        + options.everyday * calm
        + (len(learning.SCALES) + 3) * options.measured * calm
        + 3 * options.reported * (held + options.tokens)
        + 3 * options.reported * (held + REFERENCE_TOKENS)
    )
    tokens = round(steps + generated + scored)
    return LearningCost(tokens, REST * 2 * parameters * tokens / _products_a_second(dtype))


def _mean(sets: Sequence[PromptSet]) -> float:
    """Letters of a prompt, all turns together."""
    sizes = [letters(prompt) for prompts in sets for prompt in prompts.prompts]
    return sum(sizes) / max(1, len(sizes))


def _products_a_second(dtype: torch.dtype) -> float:
    """Floating-point operations a second in matrix products of a middling size."""
    rows, weight = torch.ones(SIZE // 2, SIZE, dtype=dtype), torch.ones(SIZE, SIZE, dtype=dtype)
    _ = rows @ weight
    count, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < PROBE_S:
        _ = rows @ weight
        count += 1
    return count * 2 * rows.numel() * SIZE / taken
