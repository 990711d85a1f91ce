"""The keys and values of what all chats of a model begin with (the template's system turn), kept for each edit as long as that edit lives.

It outlives a batch; what the prompts of one batch share is in `shared_prefix`. Only tokens that the template itself
writes are kept, never a prompt's own: how fast one person is answered says nothing of what another one asked.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from burnish.model.model import Model
from burnish.model.row_edits import Candidate
from burnish.model.shared_prefix import SHORTEST_PREFIX, shared_prefix


@dataclass(frozen=True)
class _Prefix:
    candidate: weakref.ref[Candidate]
    layers: list[tuple[Tensor, Tensor]]  # keys and values [heads, tokens, size]

    @property
    def tokens(self) -> int:
        return self.layers[0][0].shape[1]


class PrefixCache:
    """Keys and values of the template's first tokens under each candidate, for as long as the candidate itself is kept by anyone."""

    def __init__(self, model: Model) -> None:
        one, other = (model.tokens(text) for text in ("Hello", "1 + 1"))
        self.tokens = one[: shared_prefix([one, other])]
        self._prefixes: dict[int, _Prefix] = {}  # by the candidate's identity

    def __len__(self) -> int:
        return len(self._prefixes)

    def begin(self, cache: Any, prompts: Sequence[list[int]], candidates: Sequence[Candidate]) -> int:
        """Puts what all of these rows begin with into an empty cache; how many tokens that are.

        At least one token of every prompt is left to run.
        """
        known = [self._prefixes.get(id(candidate)) for candidate in candidates]
        if not all(known):
            return 0
        prefixes = [k for k in known if k is not None]
        tokens = min(min(k.tokens, self._shared(p), len(p) - 1) for k, p in zip(prefixes, prompts, strict=True))
        if tokens < SHORTEST_PREFIX:
            return 0
        for index in range(len(prefixes[0].layers)):
            keys, values = (torch.stack([k.layers[index][part][:, :tokens] for k in prefixes]) for part in (0, 1))
            cache.update(keys, values, index)
        return tokens

    def keep(self, cache: Any, row: int, prompt: list[int], candidate: Candidate) -> None:
        """Keeps the first tokens that a row of a cache begins with, if it is longer than what is known under its candidate."""
        name, tokens = id(candidate), self._shared(prompt)
        known = self._prefixes.get(name)
        if tokens < SHORTEST_PREFIX or (known is not None and known.tokens >= tokens):
            return
        layers = [
            (layer.keys[row, :, :tokens].clone(), layer.values[row, :, :tokens].clone()) for layer in cache.layers
        ]
        self._prefixes[name] = _Prefix(weakref.ref(candidate, lambda _: self._prefixes.pop(name, None)), layers)

    def _shared(self, prompt: list[int]) -> int:
        return shared_prefix([self.tokens, prompt]) if self.tokens else 0
