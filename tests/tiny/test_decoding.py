"""Requests that share a batch are answered as each would be alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from burnish.artifacts.lora import read_lora
from burnish.model import batch_cache, decoding
from burnish.model.decoding import (
    Candidate,
    Decoder,
    Sampling,
    batches_rows,
    decode,
)
from burnish.model.model import Model
from conftest import Models, random_adapter, random_enhancement
from decoding_example import (
    BASE,
    BATCHED,
    LONE,
    TOKENS,
    alone,
    assert_same,
    drain,
    expected,
    of,
    plain,
    requests,
)


@pytest.mark.parametrize("family", BATCHED + LONE)
def test_rows_with_edits_of_their_own_equal_each_request_alone(family: str, tiny_model: Models) -> None:
    model = tiny_model(family)
    asked = requests(model)
    answers = decode(model, asked, rows=3)
    assert answers == [expected(model, request) for request in asked]
    assert answers == [decode(model, [request])[0] for request in asked]
    assert batches_rows(model) == (family in BATCHED)


@pytest.mark.parametrize("family", BATCHED + LONE)
def test_log_probabilities_are_those_of_a_plain_pass(family: str, tiny_model: Models) -> None:
    model = tiny_model(family)
    # Samples wander where the greedy answers of a random model repeat one token.
    asked = requests(model, log_probabilities=True, sampling=Sampling(temperature=2.0))
    with Decoder(model, rows=3) as decoder:
        numbers = [decoder.submit(request) for request in asked]
        tokens = drain(decoder)
    for number, request in zip(numbers, asked, strict=True):
        mine = of(tokens, number)
        answer = [token.token for token in mine]
        reference = plain(model, request, answer)
        torch.testing.assert_close(torch.tensor([t.log_probability for t in mine]), reference, rtol=1e-4, atol=1e-4)
        if request.candidate is not BASE:
            base = plain(model, replace(request, candidate=BASE), answer)
            assert (base - reference).abs().max() > 1e-2


def test_log_probabilities_come_only_to_those_who_asked(llama: Model) -> None:
    asked = requests(llama)
    asked[1] = replace(asked[1], log_probabilities=True)
    with Decoder(llama) as decoder:
        numbers = [decoder.submit(request) for request in asked]
        for token in drain(decoder):
            assert (token.log_probability <= 0) == (token.request == numbers[1])


@pytest.mark.parametrize("block", [3, 256])
def test_rows_that_join_late_and_leave_early_change_nothing_for_the_others(
    block: int, llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_cache, "BLOCK", block)
    sizes = [4, 20, 9, 15, 2]
    asked = [
        replace(r, tokens=n, log_probabilities=True)
        for r, n in zip([*requests(llama)[2:], *requests(llama)[:2]], sizes, strict=True)
    ]
    tokens, numbers = [], []
    with Decoder(llama, rows=4) as decoder:
        for request in asked:
            numbers.append(decoder.submit(request))
            tokens += decoder.step() + decoder.step()
        tokens += drain(decoder)
    for number, request in zip(numbers, asked, strict=True):
        assert_same(of(tokens, number), alone(llama, request))


def test_a_long_prompt_beside_running_rows_is_run_in_pieces_and_stops_nobody(
    llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "CPU_CHUNK", 8)
    first, long = (replace(r, log_probabilities=True) for r in requests(llama)[:2])
    first = replace(first, tokens=30)
    with Decoder(llama) as decoder:
        numbers = decoder.submit(first), decoder.submit(long)
        decoder.cancel(numbers[1])
        tokens = decoder.step()
        number = decoder.submit(long)
        while not of(tokens, number):
            tokens += (step := decoder.step())
            assert len(of(step, numbers[0])) == 1
        assert len(of(tokens, numbers[0])) == 1 + -(-len(long.prompt) // 8)
        tokens += drain(decoder)
    assert_same(of(tokens, numbers[0]), alone(llama, first))
    assert_same(of(tokens, number), alone(llama, long))


def test_a_prompt_cancelled_between_two_pieces_leaves_its_row(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "CPU_CHUNK", 8)
    first, long = requests(llama)[:2]
    with Decoder(llama) as decoder:
        decoder.submit(first)
        decoder.step()
        number = decoder.submit(long)
        decoder.step()
        assert decoder.running == 2
        decoder.cancel(number)
        tokens = decoder.step()
        assert decoder.running == 1
        assert not of(tokens + drain(decoder), number)


def test_base_rows_do_not_feel_enhanced_neighbours(llama: Model) -> None:
    asked = requests(llama, candidate=BASE, log_probabilities=True)
    strong = Candidate("strong", random_enhancement(llama, 5.0))
    mixed = [replace(r, candidate=strong) if i % 2 else r for i, r in enumerate(asked)]
    runs = []
    for batch in (asked, mixed):
        with Decoder(llama) as decoder:
            numbers = [decoder.submit(request) for request in batch]
            tokens = drain(decoder)
            runs.append([of(tokens, number) for number in numbers])
    for index in range(0, len(asked), 2):
        assert runs[0][index] == runs[1][index]  # to the last bit: the batches have the same shape
    assert runs[0][1] != runs[1][1]


def test_adapters_steering_and_enhancements_share_a_batch(tiny_model: Models, llama: Model, tmp_path: Path) -> None:
    adapted = tiny_model("llama", own=True)
    network = random_adapter(adapted, tmp_path / "adapter", target_modules=["q_proj", "o_proj", "down_proj"])
    adapted.stop_tokens = frozenset()
    adapter = read_lora(tmp_path / "adapter")
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    enhancement = random_enhancement(llama, 0.8)
    kinds = [
        Candidate("adapter", adapter=adapter),
        Candidate("both", enhancement, adapter=adapter),
        Candidate("steered", steering=vectors),
        Candidate("enhanced", enhancement),
        BASE,
    ]
    asked = [replace(r, candidate=c, log_probabilities=True) for r, c in zip(requests(llama), kinds, strict=True)]
    with Decoder(llama) as decoder:
        numbers = [decoder.submit(request) for request in asked]
        tokens = drain(decoder)
    for number, request in zip(numbers, asked, strict=True):
        assert_same(of(tokens, number), alone(llama, request))
    peft = replace(adapted, network=network)
    peft.stop_tokens = frozenset()
    assert [t.token for t in of(tokens, numbers[0])] == peft.continuations([asked[0].prompt], TOKENS)[0]
