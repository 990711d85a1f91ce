"""Rows of a shared cache, with keys and values made up."""

from typing import Any

import pytest
import torch
import transformers

from burnish.model import batch_cache
from burnish.model.batch_cache import BatchCache


def prefilled(*rows: list[float]) -> Any:
    """A cache of one layer, one head and size one, padded with NaN on the right."""
    width = max(map(len, rows))
    states = torch.tensor([row + [float("nan")] * (width - len(row)) for row in rows])[:, None, :, None]
    cache = transformers.DynamicCache()
    cache.update(states, -states, 0)
    return cache


def step(cache: BatchCache, *values: float) -> tuple[list[list[float]], Any]:
    """Writes one token a row; what attention sees of the keys, and the mask."""
    mask = cache.arguments()["attention_mask"]
    new = torch.tensor(values)[:, None, None, None]
    keys, negated = cache.update(new, -new, 0)
    assert torch.equal(keys.nan_to_num(), -negated.nan_to_num())
    cache.advance()
    return keys[:, 0, :, 0].tolist(), None if mask is None else mask.tolist()


@pytest.mark.parametrize("block", [1, 256])
def test_rows_end_at_the_same_column_and_padding_leaves_with_the_longest(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_cache, "BLOCK", block)
    cache = BatchCache()
    cache.join(prefilled([1, 2], [3, 4, 5]), {0: 2, 1: 3})
    assert step(cache, 6, 7) == ([[0, 1, 2, 6], [3, 4, 5, 7]], [[0, 1, 1, 1], [1, 1, 1, 1]])
    cache.join(prefilled([8]), {0: 1})
    assert step(cache, 9, 10, 11)[0] == [[0, 1, 2, 6, 9], [3, 4, 5, 7, 10], [0, 0, 0, 8, 11]]
    cache.leave(1)
    assert step(cache, 12, 13) == ([[1, 2, 6, 9, 12], [0, 0, 8, 11, 13]], [[1] * 5, [0, 0, 1, 1, 1]])
    cache.leave(0)
    assert step(cache, 14) == ([[8, 11, 13, 14]], None)
    assert cache.arguments()["position_ids"].tolist() == [[4]]
    cache.leave(0)
    assert cache.layers == []


def test_numbers_that_a_row_leaves_behind_never_show() -> None:
    cache = BatchCache()
    cache.join(prefilled([1, float("nan"), 2], [3]), {0: 3, 1: 1})
    step(cache, 4, 5)
    cache.leave(0)
    cache.join(prefilled([6, 7, 8, 9]), {0: 4})
    assert step(cache, 10, 11)[0] == [[0, 0, 3, 5, 10], [6, 7, 8, 9, 11]]
