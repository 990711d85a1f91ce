"""What a model's own forward pass gives to each of its blocks, so that the blocks can be run one at a time, later.

The pass is run with every block replaced by a stand-in that notes its arguments (masks, positions, inputs by layer) and
hands on a tensor of NaN. No architecture is written again here; where a model does anything to the states between two
blocks, or makes an argument from them, the NaN or another tensor's identity gives it away and the model is refused.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from burnish.errors import ModelError
from burnish.model.capture import ReachedError


@dataclass(frozen=True)
class Call:
    """The arguments of one block besides the hidden states."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    named: bool  # the hidden states are a keyword

    def __call__(self, block: nn.Module, hidden: Tensor) -> Tensor:
        """The block's output states, of the shape of `hidden`."""
        if self.named:
            return states_of(block(*self.arguments, hidden_states=hidden, **self.keywords))
        return states_of(block(hidden, *self.arguments, **self.keywords))


@dataclass(frozen=True)
class Recording:
    """What a batch gives to the first block, and what it gives to every block besides the states."""

    hidden: Tensor
    calls: tuple[Call, ...]


def states_of(output: Any) -> Tensor:
    """The hidden states in a block's output."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


@torch.inference_mode()
def answer_length(decoder: nn.Module, block: nn.Module, arguments: dict[str, Any]) -> int:
    """How many things a block answers with, 0 where it answers with the states alone. Runs the first block, which must hold its weights."""
    length = 0

    def first(_: int, positional: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        nonlocal length
        output = type(block).forward(block, *positional, **keywords)
        length = len(output) if isinstance(output, tuple) else 0
        raise ReachedError

    with _standing_in([block], first), suppress(ReachedError):
        decoder(**arguments)
    return length


@torch.inference_mode()
def record(decoder: nn.Module, blocks: Sequence[nn.Module], arguments: dict[str, Any], length: int) -> Recording:
    """Runs the model around its blocks. length: of their answers (see `answer_length`).

    Raises ModelError for a model that cannot be run block by block.
    """
    hidden: list[Tensor] = []
    calls: list[Call] = []
    handed: list[Any] = []  # the last stand-in's tensor

    def answer(index: int, positional: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        entering, call = _taken(positional, keywords)
        if index != len(calls) or (handed and not _same(entering, handed[-1])):
            raise _refusal(decoder, f"changes the states before block {index}, or runs its blocks in another order")
        if any(_has_nan(value) for value in (*call.arguments, *call.keywords.values())):
            raise _refusal(decoder, f"computes an argument of block {index} from the states of earlier blocks")
        calls.append(call)
        hidden.append(entering)
        if index == len(blocks) - 1:
            raise ReachedError
        stand_in = torch.full_like(entering, torch.nan)
        handed.append(stand_in)
        return (stand_in, *[None] * (length - 1)) if length else stand_in

    try:
        with _standing_in(blocks, answer):
            decoder(**arguments)
    except ReachedError:
        return Recording(hidden[0], tuple(calls))
    raise _refusal(decoder, "does not run all of its blocks")


@contextmanager
def _standing_in(blocks: Sequence[nn.Module], answer: Any) -> Iterator[None]:
    """Blocks answer with answer(index, arguments, keywords); all that the model asks of them otherwise stays."""

    def stand_in(index: int) -> Any:
        return lambda *arguments, **keywords: answer(index, arguments, keywords)

    for index, block in enumerate(blocks):
        block.forward = stand_in(index)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _taken(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Tensor, Call]:
    if arguments:
        return arguments[0], Call(arguments[1:], keywords, False)
    others = {name: value for name, value in keywords.items() if name != "hidden_states"}
    return keywords["hidden_states"], Call((), others, True)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same, or one is a view of all of the other."""
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()


def _has_nan(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point() and bool(value.isnan().any())
    if isinstance(value, dict):
        return any(_has_nan(inner) for inner in value.values())
    return isinstance(value, tuple | list) and any(_has_nan(inner) for inner in value)


def _refusal(decoder: nn.Module, what: str) -> ModelError:
    return ModelError(
        f"{type(decoder).__name__} cannot be run layer by layer: it {what}. Load it as a whole, without --layer-by-layer."
    )
