"""Tokens become text piece by piece, whole characters only; one answer as it is generated."""

from collections.abc import Iterator
from typing import Any

import torch

from burnish.model.model import Model

BROKEN = "\N{REPLACEMENT CHARACTER}"  # what a decoder writes for bytes that are no character, or not yet


class Detokenizer:
    """The text that each token adds. The pieces joined are the decoded answer without a character that was cut off at its end.

    A piece is what the tokens since the last but one piece decode to, beyond what those before it do: the context of one piece is
    enough for decoders that treat the beginning of a text in their own way, and the cost of a token does not grow with the text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._context = 0  # tokens before this one are no longer looked at
        self._shown = 0  # tokens before this one are in earlier pieces

    def add(self, token: int) -> str:
        """ "" while bytes of the last character are missing."""
        self._tokens.append(token)
        before = self._decoded(self._tokens[self._context : self._shown])
        text = self._decoded(self._tokens[self._context :])
        if text.endswith(BROKEN) or len(text) <= len(before):
            return ""
        self._context, self._shown = self._shown, len(self._tokens)
        return text[len(before) :]

    def rest(self) -> str:
        """What an answer that ends here still has to show: complete characters in front of one that was cut off."""
        before = self._decoded(self._tokens[self._context : self._shown])
        return self._decoded(self._tokens[self._context :]).rstrip(BROKEN)[len(before) :]

    def _decoded(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


@torch.inference_mode()
def stream(model: Model, prompt: str, *, tokens: int = 256, system: str | None = None) -> Iterator[str]:
    """Greedy pieces of text. The caller keeps any live enhancement open until the last piece."""
    asked = model.tokens(prompt, system)
    ids = torch.tensor([asked], device=model.device)
    cache, text = None, Detokenizer(model.tokenizer)
    for _ in range(model.room(len(asked), tokens)):
        out = model.network(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        token = int(out.logits[0, -1].argmax())
        if token in model.stop_tokens:
            break
        yield text.add(token)
        ids = torch.tensor([[token]], device=model.device)
    yield text.rest()
