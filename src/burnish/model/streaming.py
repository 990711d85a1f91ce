"""One answer, piece by piece as it is generated."""

from collections.abc import Iterator

import torch

from burnish.model.detokenizer import Detokenizer
from burnish.model.model import Model


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
