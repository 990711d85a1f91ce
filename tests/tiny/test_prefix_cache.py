"""What the template begins every chat with is run once for each edit, and changes no answer."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from burnish.model.decoding import Decoder, DecodeRequest, Sampling
from burnish.model.model import Model
from burnish.model.prefix_cache import PrefixCache
from burnish.model.shared_prefix import SHORTEST_PREFIX, shared_prefix
from conftest import Models
from decoding_example import BASE, BATCHED, alone, assert_same, candidates, drain, of, requests
from families import case

SYSTEM = "<s>be brief and kind to everyone who asks </s>"


@pytest.fixture
def talkative(llama: Model) -> Model:
    """A model whose template begins with a system turn."""
    llama.tokenizer.chat_template = SYSTEM + llama.tokenizer.chat_template.removeprefix("<s>")
    return llama


@contextmanager
def passes(model: Model) -> Iterator[list[tuple[int, int]]]:
    """The shapes (rows, tokens) of the passes that the model runs."""
    shapes: list[tuple[int, int]] = []
    handle = model.network.register_forward_pre_hook(
        lambda module, arguments, keywords: shapes.append(tuple(keywords["input_ids"].shape)), with_kwargs=True
    )
    yield shapes
    handle.remove()


@pytest.mark.parametrize("family", [case(name, full=name not in ("llama", "gpt2")) for name in BATCHED])
def test_answers_behind_an_opening_are_those_of_each_request_alone(family: str, tiny_model: Models) -> None:
    model = tiny_model(family, own=True)
    model.tokenizer.chat_template = SYSTEM + model.tokenizer.chat_template.removeprefix("<s>")
    asked = requests(model, log_probabilities=True, sampling=Sampling(temperature=2.0))
    references = [alone(model, request) for request in asked]
    with Decoder(model, rows=3) as decoder:
        for _ in range(2):  # cold, then behind what was kept
            numbers = [decoder.submit(request) for request in asked]
            tokens = drain(decoder)
            for number, reference in zip(numbers, references, strict=True):
                assert_same(of(tokens, number), [replace(token, request=number) for token in reference])


def test_the_opening_is_run_once_for_each_edit(talkative: Model) -> None:
    opening = PrefixCache(talkative).tokens
    assert len(opening) >= SHORTEST_PREFIX
    one, other, *_ = candidates(talkative)
    with Decoder(talkative) as decoder, passes(talkative) as shapes:
        for candidate in (one, one, other, one):
            prompt = talkative.tokens("Tell me more")
            decoder.submit(DecodeRequest(prompt, candidate, 1))
            drain(decoder)
    every_token, without_opening = len(prompt), len(prompt) - shared_prefix([opening, prompt])
    assert [tokens for _, tokens in shapes] == [every_token, without_opening, every_token, without_opening]


def test_no_token_of_a_prompt_is_kept(talkative: Model) -> None:
    prompts = [talkative.tokens("The same beginning, and an end"), talkative.tokens("The same beginning, and another")]
    with Decoder(talkative) as decoder, passes(talkative) as shapes:
        for prompt in prompts:
            decoder.submit(DecodeRequest(prompt, BASE, 1))
            drain(decoder)
        lengths = [entry.tokens for entry in decoder._prefix_cache._prefixes.values()]  # type: ignore[union-attr]
    assert len(talkative.tokens("")) > max(lengths)
    assert shapes[1][1] == len(prompts[1]) - lengths[0]


def test_an_opening_goes_with_the_edit_that_it_was_run_under(talkative: Model) -> None:
    candidate = candidates(talkative)[0]
    with Decoder(talkative) as decoder:
        decoder.submit(DecodeRequest(talkative.tokens("Hello"), candidate, 1))
        drain(decoder)
        assert len(decoder._prefix_cache) == 1  # type: ignore[arg-type]
        del candidate
        gc.collect()
        assert len(decoder._prefix_cache) == 0  # type: ignore[arg-type]


def test_a_model_without_a_template_has_no_opening(llama: Model) -> None:
    llama.tokenizer.chat_template = None
    prefix_cache = PrefixCache(llama)
    prompt = llama.tokens("Hello there")
    with Decoder(llama) as decoder, passes(llama) as shapes:
        for _ in range(2):
            decoder.submit(DecodeRequest(prompt, BASE, 1))
            drain(decoder)
    assert len(prefix_cache.tokens) < SHORTEST_PREFIX
    assert shapes == [(1, len(prompt))] * 2
