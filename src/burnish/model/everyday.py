"""What attention writes on everyday prompts, and the constant vector that comes closest to an enhancement there."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from burnish.artifacts.direction import Enhancement
from burnish.maths.gain import edit_output, low_rank_edit
from burnish.model.capture import Tokens, capture, shared_prefix
from burnish.model.model import Model


def mean_writes(model: Model, prompts: Sequence[Any]) -> Tensor:
    """What attention adds to the residual stream in each layer, [layers, hidden], float32: the mean over the prompts' own tokens
    (not the template's, nor the first token, whose activations are of another size)."""
    tokens = [model.tokens(prompt) for prompt in prompts]
    shared = shared_prefix(tokens)
    sequences = [Tokens(t, min(max(shared, 1), len(t) - 1), len(t) - 1) for t in tokens]
    total = torch.zeros(model.anatomy.layers, model.anatomy.hidden_size)

    def add(rows: list[int], states: Tensor) -> None:
        total.add_(states.sum(0))

    capture(model, sequences, add, site="attention")
    return total / len(sequences)


def mean_pushes(enhancement: Enhancement, writes: Tensor) -> Tensor:
    """What an enhancement adds to each layer's mean write, [layers, hidden]: `V diag(a) V^+ y`.

    A control vector made of this moves every token by the same amount, the one by which the enhancement moves an average everyday
    token. It does not do what makes the enhancement one: move tokens by how much they already have of the direction, and
    not move those that have none. Nothing is pushed where everyday writes have no component along the direction.
    """
    pushes = torch.zeros_like(writes)
    for layer in enhancement.edited_layers():
        edit = low_rank_edit(enhancement.vectors[layer].T, enhancement.gains[layer])
        pushes[layer] = edit_output(writes[layer], edit) - writes[layer]
    return pushes
