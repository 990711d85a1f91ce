"""Requests under edits of their own, and what each is answered alone."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch

from burnish.model.decoding import (
    Candidate,
    DecodedToken,
    Decoder,
    DecodeRequest,
)
from burnish.model.model import Model
from conftest import random_enhancement

PROMPTS = ["Hello", "Describe a lighthouse at dusk, and the sea around it.", "Why?", "Tell me more", "And then?"]
TOKENS = 12
BASE = Candidate("base")
# What decides: grouped heads, learned positions, no positions but a bias, latent attention with experts, several towers.
BATCHED = ["llama", "gpt2", "bloom", "deepseek_v3", "qwen2_5_vl"]
LONE = ["mistral", "jamba", "minimax", "recurrent_gemma"]  # windows, state space, a cache of its own, states in modules


def candidates(model: Model) -> list[Candidate]:
    """Enhancements of two ranks, and the base model as the fourth."""
    plans = [random_enhancement(model, f, seed=i, rank=1 + i % 2) for i, f in enumerate((4.0, 9.0, -5.0))]
    return [*(Candidate(str(i), plan) for i, plan in enumerate(plans)), BASE, Candidate("again", plans[0])]


def requests(model: Model, tokens: int = TOKENS, **settings: object) -> list[DecodeRequest]:
    pairs = zip(PROMPTS, candidates(model), strict=True)
    return [replace(DecodeRequest(model.tokens(p), c, tokens), **settings) for p, c in pairs]


def expected(model: Model, request: DecodeRequest) -> list[int]:
    enhancement = request.candidate.enhancement
    with nullcontext() if enhancement is None else model.enhanced(enhancement):
        return model.continuations([request.prompt], request.tokens)[0]


@torch.inference_mode()
def plain(model: Model, request: DecodeRequest, answer: list[int]) -> torch.Tensor:
    """Log probabilities of an answer's tokens by an ordinary pass without a cache."""
    enhancement = request.candidate.enhancement
    with nullcontext() if enhancement is None else model.enhanced(enhancement):
        ids = torch.tensor([request.prompt + answer])
        logits = model.network(input_ids=ids, use_cache=False).logits[0, len(request.prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]


def drain(decoder: Decoder) -> list[DecodedToken]:
    tokens: list[DecodedToken] = []
    while not decoder.idle:
        tokens += decoder.step()
    return tokens


def of(tokens: Sequence[DecodedToken], number: int) -> list[DecodedToken]:
    return [token for token in tokens if token.request == number]


def alone(model: Model, request: DecodeRequest) -> list[DecodedToken]:
    with Decoder(model, rows=1) as decoder:
        decoder.submit(request)
        return drain(decoder)


def assert_same(tokens: Sequence[DecodedToken], reference: Sequence[DecodedToken]) -> None:
    """The same tokens and ends; log probabilities up to the rounding of products of another shape."""
    assert [(t.token, t.finished) for t in tokens] == [(t.token, t.finished) for t in reference]
    torch.testing.assert_close(
        torch.tensor([t.log_probability for t in tokens]),
        torch.tensor([t.log_probability for t in reference]),
        rtol=0,
        atol=1e-4,
        equal_nan=True,
    )


def hooks(model: Model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.network.modules())
