"""What learning will take, in tokens."""

from collections.abc import Sequence

from burnish.learning import learning
from burnish.learning.descent import OWN_ROWS, OWN_SHARE
from burnish.learning.report import REFERENCE_TOKENS
from burnish.learning.subject import Subject, letters
from burnish.model.forecast import Work
from burnish.model.imitation import CPU_TOKENS
from burnish.options import LearnOptions
from burnish.prompts import PromptSet

LETTERS_A_TOKEN = 4.0  # of English; a token of Korean has fewer letters, and its prompts have fewer too
TEMPLATE = 12  # tokens that a chat template adds to a prompt behind what all share


def learning_work(subjects: Sequence[Subject], options: LearnOptions) -> Work:
    """Of `learn`, from the prompts' lengths; a backward pass counts as another one forward."""
    asked = [_mean([s.questions for s in subjects]), _mean([s.held_out for s in subjects])]
    question, held = (size / LETTERS_A_TOKEN + TEMPLATE for size in asked)
    answers, calm = question + options.tokens, question + options.everyday_tokens
    spoken = OWN_SHARE * OWN_ROWS * options.rows * (question + learning.SAMPLED_TOKENS)
    taught = (1 - OWN_SHARE * OWN_ROWS) * options.rows * answers
    steps = 2 * options.steps * (taught + spoken + options.everyday_rows * calm)
    generated = (
        _answers(options.prompts, question, options.tokens)
        + _answers(options.everyday + 2 * options.measured, question, options.everyday_tokens)
        + _answers(learning.SAMPLED, question, learning.SAMPLED_TOKENS)
        + _answers(2 * learning.READ, held, learning.READ_TOKENS)
        + _answers(2 * learning.HARMFUL, question, learning.REFUSAL_TOKENS)
        + _answers(options.reported, held, options.tokens)
    )
    scored = (
        options.prompts * answers
        + options.everyday * calm
        + (len(learning.SCALES) + 3) * options.measured * calm
        + 3 * options.reported * (held + options.tokens)
        + 3 * options.reported * (held + REFERENCE_TOKENS)
    )
    return generated + Work(scored=steps + scored, logits=CPU_TOKENS)


def _answers(count: int, length: float, tokens: int) -> Work:
    return Work(count * length, count * tokens)


def _mean(sets: Sequence[PromptSet]) -> float:
    """Letters of a prompt, all turns together."""
    sizes = [letters(prompt) for prompts in sets for prompt in prompts.prompts]
    return sum(sizes) / max(1, len(sizes))
