"""How far an edited model is from given predictions, and the derivative of that with respect to the edit.

One pass for a batch of answers: the tokens that all prompts share at the start are run once (and differentiated), logits are
made only where an answer's token is predicted, and no weight asks for a gradient, so that memory stays near that of inference.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from burnish.errors import ModelError
from burnish.maths.gain import inverse
from burnish.model.capture import in_batches, padded
from burnish.model.live import Hook, changing, norm_behind, registered
from burnish.model.model import Model
from burnish.model.processes import current
from burnish.model.scoring import Item, only_at
from burnish.model.shared_prefix import SHORTEST_PREFIX, filled_cache, shared_prefix

CPU_TOKENS, GPU_TOKENS = 640, 8192  # a batch behind the shared prefix, padding included: its graph takes memory
LOWEST = -100.0  # log probability of a token that a model holds for impossible: keeps half precision finite


@dataclass(frozen=True)
class Lesson:
    """An answer and what should be predicted at each of its tokens."""

    item: Item
    target: Tensor  # log probabilities [answer tokens, vocabulary], float16


@dataclass
class SymmetricEdit:
    """The edit of every layer in its free form (`maths/symmetric.py`)."""

    rows: Tensor  # [layers, k, hidden], float32; the leaf whose gradient is asked for
    signs: Tensor  # [k]


def log_probabilities(model: Model, items: Sequence[Item]) -> list[Tensor]:
    """What the model as it is predicts at each answer's tokens: [answer tokens, vocabulary] an item, float16."""
    results: list[Tensor] = [torch.zeros(0)] * len(items)

    def keep(members: list[int], logits: Tensor) -> None:
        lengths = [len(items[i].answer) for i in members]
        parts = torch.split(logits.log_softmax(-1).clamp_min(LOWEST).half().cpu(), lengths)
        for i, part in zip(members, parts, strict=True):
            results[i] = part

    with torch.no_grad():
        run_answers(model, items, keep, differentiable=False)
    return results


def distances(targets: Sequence[Tensor], predicted: Sequence[Tensor]) -> list[Tensor]:
    """KL(target || predicted) in nats at each token of each answer; both [answer tokens, vocabulary] log probabilities."""
    pairs = ((target.double(), other.double()) for target, other in zip(targets, predicted, strict=True))
    return [(target.exp() * (target - other)).sum(-1) for target, other in pairs]


def likelihoods(predicted: Sequence[Tensor], answers: Sequence[list[int]]) -> Tensor:
    """Mean log probability per token of each answer, [answers]; predicted: [answer tokens, vocabulary] each."""
    rows = zip(predicted, answers, strict=True)
    return torch.stack([row.double().gather(1, torch.tensor(answer)[:, None]).mean() for row, answer in rows])


def imitate(model: Model, edit: SymmetricEdit, lessons: Sequence[Lesson], weights: Sequence[float]) -> list[Tensor]:
    """Adds the gradient of `sum_i weights_i sum_t KL(target_it || edited_it)` to `edit.rows.grad`.

    Processes of one job share the lessons; each gets the whole gradient.

    Args:
        model: the base model; the edit is applied for the length of the pass.
        edit: free rows, [layers, k, hidden].
        lessons: answers and their targets.
        weights: of each answer's tokens in the sum.

    Returns:
        KL in nats at each token of each answer, without a gradient.

    Raises:
        ModelError: the model computes no numbers.
    """
    processes, before = current(), edit.rows.grad
    share = processes.share([len(lesson.item.prompt) + len(lesson.item.answer) for lesson in lessons])
    edit.rows.grad = None
    with frozen(model.network), edited(model, edit):
        distances = backward(model, [lessons[i] for i in share], [weights[i] for i in share])
    part = torch.zeros_like(edit.rows) if edit.rows.grad is None else edit.rows.grad
    total = processes.summed(part.cpu()).to(edit.rows.device)
    edit.rows.grad = total if before is None else before + total
    everywhere = processes.merged(dict(zip(share, distances, strict=True)))
    return [everywhere[i] for i in range(len(lessons))]


def backward(model: Model, lessons: Sequence[Lesson], weights: Sequence[float]) -> list[Tensor]:
    """Adds the gradient of `sum_i weights_i sum_t KL(target_it || model_it)` to everything in the network that asks for one.

    Args and returns as `imitate`, without an edit and without other processes.
    """
    kl: list[Tensor] = [torch.zeros(0)] * len(lessons)

    def step(members: list[int], logits: Tensor) -> None:
        lengths = [len(lessons[i].item.answer) for i in members]
        with torch.no_grad():
            target = torch.cat([lessons[i].target for i in members]).to(logits.device).float()
            likely = target.exp()
            predicted = logits.log_softmax(-1)
            distance = (likely * (target - predicted)).sum(-1)
            weight = torch.cat([torch.full((n,), weights[i]) for n, i in zip(lengths, members, strict=True)])
            pull = predicted.exp_().sub_(likely).mul_(weight.to(logits)[:, None])
        if not bool(distance.isfinite().all()):
            raise ModelError(
                "The model's predictions are not finite: its number type overflows or its weights are damaged. Load it with "
                "--dtype float32."
            )
        if logits.requires_grad:  # not where every row is zero
            torch.autograd.backward(logits, pull)
        for i, part in zip(members, torch.split(distance.cpu().double(), lengths), strict=True):
            kl[i] = part

    with torch.enable_grad():
        run_answers(model, [lesson.item for lesson in lessons], step, differentiable=True)
    return kl


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """No weight asks for a gradient meanwhile."""
    asking = [p for p in network.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_()


@dataclass(frozen=True)
class PaddedBatch:
    """Items padded on the right, and where their answers' tokens are predicted."""

    ids: Tensor  # [items, tokens]
    rows: Tensor  # [answer tokens], the item of each
    positions: Tensor  # [answer tokens], where it is predicted
    lengths: Tensor  # [items], answer tokens


def padded_batch(items: Sequence[Item], device: torch.device) -> PaddedBatch:
    ids = padded([item.prompt + item.answer for item in items])
    rows = torch.cat([torch.full((len(i.answer),), n) for n, i in enumerate(items)])
    positions = torch.cat([torch.arange(len(i.answer)) + len(i.prompt) - 1 for i in items])
    lengths = torch.tensor([len(i.answer) for i in items])
    return PaddedBatch(*(t.to(device) for t in (ids, rows, positions, lengths)))


def run_answers(
    model: Model, items: Sequence[Item], consume: Callable[[list[int], Tensor], None], *, differentiable: bool
) -> None:
    """Hands over (indices of items, float32 logits at their answers' tokens) batch by batch, the shortest items first."""
    if not items:  # a process without a share
        return
    sequences = [i.prompt + i.answer for i in items]
    prefix = min(shared_prefix(sequences), min(len(i.prompt) for i in items) - 1)
    begins = sequences[0][:prefix] if prefix >= SHORTEST_PREFIX else []
    lengths = [len(s) - len(begins) for s in sequences]
    for members in in_batches(lengths, CPU_TOKENS if model.device.type == "cpu" else GPU_TOKENS):
        cache = filled_cache(model, begins, differentiable=differentiable) if begins else None
        prefix = len(begins) if cache is not None else 0
        batch = padded_batch([Item(items[i].prompt[prefix:], items[i].answer) for i in members], model.device)
        arguments: dict[str, Any] = {"use_cache": cache is not None}
        if cache is not None:
            cache.pick(torch.zeros(len(members), dtype=torch.long))
            arguments["past_key_values"] = cache
        with only_at(model, batch.rows, batch.positions):
            logits = model.network(input_ids=batch.ids, **arguments).logits[0]
        consume(members, logits.float())


def edited(model: Model, edit: SymmetricEdit) -> AbstractContextManager[None]:
    """Hooks on the attention output projections that apply the edit and keep its derivative.

    A layer whose rows are zero has none: neither a change nor a gradient comes from it, and what lies before the first edited layer is not
    differentiated.
    """
    hooks = []
    for projection in model.anatomy.attention():
        if bool(edit.rows[projection.layer].any()):
            norm = norm_behind(model.network, model.anatomy, projection.post_norm)
            hook = _editing(edit, projection.layer, None if norm is None else norm.float())
            hooks.append((model.network.get_submodule(projection.path), hook))
    return registered(hooks)


def _editing(edit: SymmetricEdit, layer: int, norm: Tensor | None) -> Hook:
    """`y + D^-1 B^T diag(s) B D y`, with the norm `D` that follows the projection (the identity for most families)."""

    def change(write: Tensor, _: Any) -> Tensor:
        rows, signs = edit.rows[layer].to(write.device), edit.signs.to(write.device)
        exact = write.float()
        normed = exact if norm is None else exact * norm.to(write.device)
        added = (normed @ rows.T * signs) @ rows
        if norm is not None:
            added = added * inverse(norm).to(write.device)
        return (exact + added).to(write.dtype)

    return changing(change)
