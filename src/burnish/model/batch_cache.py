"""Keys and values of the rows that decode together. Rows come and go between passes."""

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.cache_utils import DynamicLayer

BLOCK = 256  # columns added when the buffers are full: one copy of the cache in so many passes


class BatchCache(transformers.DynamicCache):  # type: ignore[misc]
    """Rows that end at the same column and are padded on the left, in buffers allocated ahead.

    A pass writes one column for all rows, and attention reads a view that starts where the longest row does: padding shrinks by
    itself when that row leaves, and nothing is concatenated. The buffers are packed anew only when their columns are used up or
    a row that joins needs more room.
    """

    layers: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []  # tokens of each row
        self.end = 0  # the column that the next token goes to
        self._room = (0, 0)  # rows and columns of the buffers

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)

    def join(self, prefilled: Any, rows: Mapping[int, int]) -> None:
        """Copies rows of a cache whose padding is on the right. rows: tokens to keep, by row of `prefilled`."""
        count, longest = len(self.lengths) + len(rows), max(self.longest, *rows.values())
        if count > self._room[0] or longest > self.end:
            self._pack(prefilled, max(count, self._room[0]), longest)
        for place, (row, length) in enumerate(rows.items(), len(self.lengths)):
            start = self.end - length
            for layer, prefilled_layer in zip(self.layers, prefilled.layers, strict=True):
                for buffer, states in ((layer.keys, prefilled_layer.keys), (layer.values, prefilled_layer.values)):
                    # A mask hides what an earlier row left here, but not where that is NaN.
                    buffer[place, :, :start] = 0
                    buffer[place, :, start : self.end] = states[row, :, :length]
        self.lengths += rows.values()

    def leave(self, row: int) -> None:
        """Frees a row; the last row takes its place."""
        last = len(self.lengths) - 1
        if row != last:
            for layer in self.layers:
                layer.keys[row, :, : self.end] = layer.keys[last, :, : self.end]
                layer.values[row, :, : self.end] = layer.values[last, :, : self.end]
        self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        if not self.lengths:
            self.layers, self.end, self._room = [], 0, (0, 0)

    def arguments(self) -> dict[str, Any]:
        """What a pass of one token a row needs: the cache, where padding is, and the tokens' positions."""
        if self.end == self._room[1]:
            self._pack(self, self._room[0], self.longest)
        lengths = torch.tensor(self.lengths)[:, None]
        mask = None
        if min(self.lengths) < self.longest:
            mask = (torch.arange(self.longest + 1) >= self.longest - lengths).long()
        return {"past_key_values": self, "attention_mask": mask, "position_ids": lengths}

    def advance(self) -> None:
        """Keeps the column that the pass wrote."""
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def _pack(self, like: Any, rows: int, end: int) -> None:
        """New buffers with room for `rows`, in which all rows end at column `end`."""
        count, longest = len(self.lengths), self.longest
        layers = []
        for index, layer in enumerate(like.layers):
            packed = _BatchLayer(self, layer, rows, end + BLOCK)
            if count:
                old = self.layers[index]
                packed.keys[:count, :, end - longest : end] = old.keys[:count, :, self.end - longest : self.end]
                packed.values[:count, :, end - longest : end] = old.values[:count, :, self.end - longest : self.end]
            layers.append(packed)
        self.layers, self.end, self._room = layers, end, (rows, end + BLOCK)


class _BatchLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's buffers [rows, heads, columns, size]."""

    def __init__(self, cache: BatchCache, like: Any, rows: int, columns: int) -> None:
        super().__init__()
        self.cache = cache
        self.keys, self.values = (
            states.new_zeros(rows, states.shape[1], columns, states.shape[3]) for states in (like.keys, like.values)
        )
        self.is_initialized = True

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        rows, end = len(keys), self.cache.end
        self.keys[:rows, :, end : end + 1], self.values[:rows, :, end : end + 1] = keys, values
        shown = slice(end - self.cache.longest, end + 1)
        return self.keys[:rows, :, shown], self.values[:rows, :, shown]

    def get_seq_length(self) -> int:
        return self.cache.longest


class LoneCache:
    """The model's own cache of a single row, for models whose caches cannot be joined."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self._cache: Any = None

    def join(self, prefilled: Any, rows: Mapping[int, int]) -> None:
        self._cache, self.lengths = prefilled, list(rows.values())

    def leave(self, row: int) -> None:
        self._cache, self.lengths = None, []

    def arguments(self) -> dict[str, Any]:
        return {"past_key_values": self._cache, "position_ids": torch.tensor(self.lengths)[:, None]}

    def advance(self) -> None:
        self.lengths = [self.lengths[0] + 1]
