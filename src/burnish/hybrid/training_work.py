"""What a training will take, in tokens."""

from burnish.hybrid.tokenised import tokens_in
from burnish.hybrid.training import Prepared
from burnish.model.forecast import BATCH, Work

BACKWARD = 1.4  # forward passes that a backward one through the weights, but not to them, costs
PROMPT = 60  # tokens of an everyday prompt with its template


def training_work(prepared: Prepared) -> Work:
    """Of the steps, the barrier's among them, and of what is measured before and after."""
    options = prepared.options
    read = (1 + BACKWARD) * tokens_in(prepared.items)
    everyday = options.barrier_prompts * (PROMPT + options.barrier_tokens)
    checks = 2 + prepared.steps // options.check_every
    if options.gradient_checkpointing:
        read += tokens_in(prepared.items)
    measured = Work(
        scored=checks * tokens_in(prepared.held_out) + 4 * everyday,
        written=2 * options.barrier_prompts * options.barrier_tokens,
    )
    barred = prepared.steps * (1 + BACKWARD) * everyday if prepared.budget is not None else 0.0
    return measured + Work(scored=read + barred, logits=BATCH)
