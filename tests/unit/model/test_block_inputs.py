"""A model's own forward pass says what its blocks are given, or the model is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from burnish.errors import ModelError
from burnish.model.block_inputs import answer_length, record


class Block(nn.Module):
    def __init__(self, factor: float, length: int) -> None:
        super().__init__()
        self.factor, self.length = factor, length

    def forward(self, hidden_states: Tensor, shift: Tensor, *, shared: dict[str, Tensor]) -> Any:
        output = hidden_states * self.factor + shift + shared.get("first", 0)
        shared.setdefault("first", output)
        return (output, *[None] * (self.length - 1)) if self.length else output


class Decoder(nn.Module):
    """between: what it does to the states between blocks; argument: what it makes of them for the next block."""

    def __init__(self, length: int = 0, between: Any = None, argument: Any = None, blocks: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(i + 2.0, length) for i in range(3))
        self.length, self.between, self.argument, self.used = length, between, argument, blocks

    def forward(self, ids: Tensor) -> Tensor:
        hidden, shared = ids[..., None].float(), {}
        for index, block in enumerate(self.blocks[: self.used]):
            shift = self.argument(hidden) if self.argument and index else torch.tensor(float(index))
            output = block(hidden, shift, shared=shared)
            hidden = output[0] if self.length else output
            if self.between is not None:
                hidden = self.between(hidden)
        return hidden


IDS = torch.tensor([[1, 2, 3], [4, 5, 6]])


def recorded(decoder: Decoder) -> Any:
    length = answer_length(decoder, decoder.blocks[0], {"ids": IDS})
    return record(decoder, list(decoder.blocks), {"ids": IDS}, length)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_blocks_run_one_by_one_give_what_the_model_gives(length: int) -> None:
    decoder = Decoder(length)
    recording = recorded(decoder)
    hidden = recording.hidden
    for call, block in zip(recording.calls, decoder.blocks, strict=True):
        hidden = call(block, hidden)
    assert not [block for block in decoder.blocks if "forward" in vars(block)]  # they are themselves again
    assert torch.equal(hidden, decoder(IDS))


def test_a_view_of_all_states_is_the_states() -> None:
    assert len(recorded(Decoder(between=lambda h: h[:, :, :])).calls) == 3


@pytest.mark.parametrize(
    ("decoder", "what"),
    [
        (Decoder(between=lambda h: h * 2), "changes the states before block 1"),
        (Decoder(between=lambda h: h[:, 1:]), "changes the states before block 1"),
        (Decoder(between=lambda h: h.clone()), "changes the states before block 1"),
        (Decoder(argument=lambda h: h.mean()), "an argument of block 1"),
        (Decoder(blocks=2), "does not run all"),
    ],
)
def test_a_model_that_does_more_than_run_its_blocks_is_refused(decoder: Decoder, what: str) -> None:
    with pytest.raises(ModelError, match=what):
        recorded(decoder)
