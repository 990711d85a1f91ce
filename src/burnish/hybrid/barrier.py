"""Holds what everyday prompts notice of a training within a budget: a penalty while training, a measured scale afterwards."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from burnish.evaluation.pairs import answered_items, greedy_answers, halves
from burnish.maths.intervals import Interval
from burnish.maths.strength import Search
from burnish.model.divergence import divergence
from burnish.model.imitation import padded_batch
from burnish.model.model import Model
from burnish.model.scoring import Item, score_prompts
from burnish.options import EvaluateOptions, TrainOptions
from burnish.prompts.domains import load_general, load_protect
from burnish.steps import Progress

AT_ONCE = 4  # everyday answers a step
FREE = 0.5  # share of the budget that costs nothing
STIFFNESS = 2.0  # nats of loss where the budget is reached are a quarter of this


@dataclass(frozen=True)
class Everyday:
    """The base model's own greedy answers to everyday prompts, in two kinds that share no prompt: a training learns by heart what its
    barrier shows it, so that only others say what it did."""

    barred: list[Item]  # whose change costs something while training
    measured: list[Item]  # by which the result is scaled and reported


def everyday_answers(model: Model, options: TrainOptions, progress: Progress | None = None) -> Everyday:
    """Prompts of the tuning half, general and protect ones, every other one measured; the barrier has packaged everyday prompts as well.

    Of each kind `options.barrier_prompts` at most; the answers are cached.
    """
    sizes = EvaluateOptions(
        prompts=max(2, options.barrier_prompts), tokens=max(2, options.barrier_tokens), seed=options.seed
    )
    general = load_general()
    barred, measured = halves(halves(general.held_out.joined(load_protect()))[0])
    sets = (barred.joined(general.prompts).spread(sizes.prompts), measured.spread(sizes.prompts))
    answered = (greedy_answers(model, prompts, sizes, progress) for prompts in sets)
    return Everyday(*(answered_items(model, rows) for rows in answered))


@dataclass(frozen=True)
class Barrier:
    """KL(base || trained) on everyday answers as a penalty: nothing below half the budget, steeper and steeper above.

    The same step always sees the same answers and the penalty has no memory, so that a resumed training goes on as if it had
    never been stopped.
    """

    items: Sequence[Item]
    references: Sequence[
        Tensor
    ]  # the base model's log probabilities at each answer's tokens [tokens, vocabulary], float16
    budget: float  # nats per token

    @staticmethod
    def of(model: Model, items: Sequence[Item], budget: float) -> "Barrier":
        """model: as it is before anything is changed."""
        with torch.no_grad():
            references = [answer.half() for item in items for answer in _log_probabilities(model.network, [item])]
        return Barrier(items, references, budget)

    def penalty(self, network: Any, step: int) -> Tensor:
        """Nats to add to the loss at a step, with its gradient."""
        count = min(AT_ONCE, len(self.items))
        chosen = [(step * count + i) % len(self.items) for i in range(count)]
        current = _log_probabilities(network, [self.items[i] for i in chosen])
        kl = []
        for i, row in zip(chosen, current, strict=True):
            base = self.references[i].to(row.device).float()
            kl.append((base.exp() * (base - row)).sum(-1).mean())
        over = (torch.stack(kl).mean() / self.budget - FREE).clamp_min(0)
        return STIFFNESS * over.square()


def _log_probabilities(network: Any, items: Sequence[Item]) -> list[Tensor]:
    """[answer tokens, vocabulary] of each item, float32."""
    batch = padded_batch(items, network.get_input_embeddings().weight.device)
    logits = network(input_ids=batch.ids, use_cache=False).logits[batch.rows, batch.positions]
    return list(torch.split(logits.float().log_softmax(-1), batch.lengths.tolist()))


def damage(model: Model, items: Sequence[Item], changed: Callable[[], AbstractContextManager[Any]]) -> Interval:
    """KL(base || changed) over the items, nats per token."""
    return divergence(score_prompts(model, items, items, changed).candidates[0]).kl


def within(measure: Callable[[float], Interval], budget: float) -> tuple[float, Interval]:
    """(the largest scale, at most 1, whose measured damage is surely within the budget, that damage).

    Surely: the upper end of its 95 % interval, since the next prompts are others. measure: a scale to its damage.
    """
    search = Search([1.0], most=1.0)
    measured: dict[float, Interval] = {}
    while search.asked:
        scale = search.asked[0]
        measured[scale] = measure(scale)
        search.tell([measured[scale].high / budget])
    (scale,) = search.strengths
    return scale, measured.get(scale) or measure(scale)
