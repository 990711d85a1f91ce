"""The tokens that the prompts of one batch share at the start (the template's system turn), run once and attended to by all.

Nothing is kept beyond the batch; `prefix_cache` keeps what a server's chats begin with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from burnish.model.model import Model

SHORTEST_PREFIX = 4  # tokens worth a pass of their own


def shared_prefix(sequences: Sequence[list[int]]) -> int:
    """How many leading tokens all sequences share; at least one token of each is left."""
    if len(sequences) < 2:
        return 0
    first, last = min(sequences), max(sequences)  # in alphabetical order: what these two share, all share
    limit = min(len(s) for s in sequences) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


def shareable_cache(model: "Model") -> Any | None:
    """An empty key-value cache that takes in a prefix, or None where the model's cache cannot be shared by a batch.

    After `share(tokens)` batches attend to the prefix and leave nothing in it; `pick(prefix_rows)` says which of its rows each row
    of a batch attends to.
    """
    import transformers
    from transformers.cache_utils import DynamicLayer

    class SharedLayer(DynamicLayer):  # type: ignore[misc]
        """Keeps the prefix until it is shared; then hands it to every row of a batch, and keeps nothing of the batch."""

        def get_seq_length(self) -> int:
            return self.tokens or super().get_seq_length()  # type: ignore[no-any-return]

        def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            if not self.tokens:
                return super().update(keys, values)  # type: ignore[no-any-return]
            prefix_rows: Tensor | None = self.prefix_rows
            if prefix_rows is None:
                prefix = [t.expand(len(keys), -1, -1, -1) for t in (self.keys, self.values)]
            else:
                prefix = [t[prefix_rows.to(t.device)] for t in (self.keys, self.values)]
            return torch.cat([prefix[0], keys], dim=-2), torch.cat([prefix[1], values], dim=-2)

    class SharedCache(transformers.DynamicCache):  # type: ignore[misc]
        def share(self, tokens: int) -> None:
            for layer in self.layers:
                layer.tokens = tokens

        def pick(self, prefix_rows: Tensor) -> None:
            for layer in self.layers:
                layer.prefix_rows = prefix_rows

        def spread(self, rows: int) -> None:
            """Becomes an ordinary cache with the prefix in every row."""
            for layer in self.layers:
                layer.__class__ = DynamicLayer
                layer.keys, layer.values = (t.expand(rows, -1, -1, -1) for t in (layer.keys, layer.values))

    cache = SharedCache(config=model.network.config)
    plain = all(type(layer) is DynamicLayer for layer in cache.layers)
    mixers = {projection.kind for projection in model.anatomy.projections}
    if not plain or mixers != {"attention"} or model.anatomy.skipped:
        return None
    for layer in cache.layers:
        layer.__class__, layer.tokens, layer.prefix_rows = SharedLayer, 0, None
    return cache


def filled_cache(model: "Model", tokens: list[int], *, rows: int = 1, differentiable: bool = False) -> Any | None:
    """A shared cache (see `shareable_cache`) that holds a prefix, run in `rows` rows; None where there is none."""
    cache = shareable_cache(model)
    if cache is None:
        return None
    ids = torch.tensor([tokens], device=model.device).expand(rows, -1)
    with torch.enable_grad() if differentiable else torch.inference_mode():
        cache = decoder_of(model)(input_ids=ids, past_key_values=cache, use_cache=True).past_key_values
    cache.share(len(tokens))
    return cache


def growing_cache(model: "Model", tokens: list[int], rows: int) -> Any | None:
    """An ordinary cache of `rows` rows that begin with the same tokens, which are run once; None where that is not possible."""
    cache = filled_cache(model, tokens)
    if cache is not None:
        cache.spread(rows)
    return cache


def decoder_of(model: "Model") -> nn.Module:
    """The model without its language-model head."""
    base = getattr(model.network, "base_model", model.network)
    return base if isinstance(base, nn.Module) else model.network
