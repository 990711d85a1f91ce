"""Requests come, end, fail and leave: in order, from any thread, and nothing of them stays."""

import gc
import random
import threading
import weakref
from dataclasses import replace

import pytest
import torch

from burnish.artifacts.lora import LoraAdapter
from burnish.errors import InputError, ModelError, WrongModelError
from burnish.model import batch_cache
from burnish.model.decoding import (
    Candidate,
    Decoder,
    DecodeRequest,
    Sampling,
    batches_rows,
    decode,
)
from burnish.model.model import Model
from conftest import Models, random_enhancement
from decoding_example import BASE, PROMPTS, TOKENS, alone, drain, expected, hooks, of, requests


def test_cancel_frees_the_row_at_the_next_step_and_may_be_repeated(llama: Model) -> None:
    with Decoder(llama, rows=1) as decoder:
        first, second, third = (decoder.submit(request) for request in requests(llama)[:3])
        decoder.step()
        for number in (first, first, second, 99):
            decoder.cancel(number)
        assert [token.request for token in decoder.step()] == [third]
        assert (decoder.running, decoder.waiting) == (1, 0)
        decoder.cancel(first)
        drain(decoder)
        decoder.cancel(third)
        assert decoder.step() == []


def test_requests_are_taken_in_the_order_of_submission(llama: Model) -> None:
    shuffled = random.Random(0)
    with Decoder(llama, rows=3) as decoder:
        asked = [replace(shuffled.choice(requests(llama)), tokens=shuffled.randint(1, 6)) for _ in range(20)]
        numbers = [decoder.submit(request) for request in asked]
        order = [token.request for token in drain(decoder)]
    assert sorted(numbers, key=order.index) == numbers


def test_every_step_gives_each_running_row_one_token(llama: Model) -> None:
    with Decoder(llama, rows=3) as decoder:
        for request in requests(llama):
            decoder.submit(request)
        while not decoder.idle:
            running = [token.request for token in decoder.step()]
            assert len(running) == len(set(running))
            assert decoder.running <= 3


def test_seeded_samples_repeat_whoever_shares_the_batch(llama: Model) -> None:
    asked = [
        replace(r, sampling=Sampling(temperature=1.5, top_p=p, seed=i))
        for i, (r, p) in enumerate(zip(requests(llama, tokens=20), (1.0, 0.9, 0.5, 1.0, 0.95), strict=True))
    ]
    together = decode(llama, asked)
    assert together == decode(llama, asked, rows=2)
    assert together[::-1] == decode(llama, asked[::-1])
    assert together == [decode(llama, [request])[0] for request in asked]
    other = replace(asked[0], sampling=Sampling(temperature=1.5, seed=99))
    assert decode(llama, [other])[0] != together[0]
    assert decode(llama, [replace(asked[0], sampling=Sampling())])[0] == expected(llama, asked[0])


def test_an_answer_ends_at_a_stop_token_or_at_its_length(llama: Model) -> None:
    request = requests(llama)[0]
    free = alone(llama, request)
    assert [t.finished for t in free] == [""] * (TOKENS - 1) + ["length"]
    stop = next(t.token for t in free if t.token != free[0].token)
    llama.stop_tokens = frozenset({stop})
    stopped = alone(llama, request)
    assert stopped[-1] == replace(free[len(stopped) - 1], log_probability=stopped[-1].log_probability, finished="stop")
    assert decode(llama, [request])[0] == [t.token for t in stopped[:-1]]
    llama.stop_tokens = frozenset({free[0].token})
    assert decode(llama, [request]) == [[]]


def test_a_request_without_finite_logits_fails_and_the_others_go_on(llama: Model) -> None:
    asked = requests(llama)
    asked[1] = replace(asked[1], candidate=Candidate("far too strong", random_enhancement(llama, float("inf"))))
    with Decoder(llama, rows=5) as decoder:
        numbers = [decoder.submit(request) for request in asked]
        tokens = drain(decoder)
        again = decoder.submit(asked[0])  # in rows where the failed request has been
        assert [t.token for t in of(drain(decoder), again)] == expected(llama, asked[0])
    (failed,) = of(tokens, numbers[1])
    assert (failed.finished, failed.token) == ("failed", -1)
    assert "not finite under 'far too strong'" in str(failed.error)
    for number, request in list(zip(numbers, asked, strict=True))[::2]:
        assert [t.token for t in of(tokens, number)] == expected(llama, request)
    with pytest.raises(ModelError, match="not finite"):
        decode(llama, asked)


@pytest.mark.parametrize("length", [3, 5])
def test_an_adapter_that_fails_inside_a_pass_fails_its_own_requests_only(
    length: int, llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlp = llama.network.model.layers[0].mlp
    forward, inputs = mlp.forward, mlp.down_proj.in_features
    # As an expert would: the projection sees three tokens, whatever the batch has.
    monkeypatch.setattr(mlp, "forward", lambda x: forward(x) + 0 * mlp.down_proj(torch.zeros(1, 3, inputs)).sum())
    factors = torch.ones(1, inputs), torch.ones(mlp.down_proj.out_features, 1)
    adapter = LoraAdapter("expert", {"model.layers.0.mlp.down_proj": factors})
    asked = requests(llama)[:3]
    failing = DecodeRequest(asked[0].prompt[:length], Candidate("expert", adapter=adapter), TOKENS)
    with Decoder(llama) as decoder:
        if length == 3:  # as many tokens as in the prompt: found out only beside others
            number = decoder.submit(failing)
            tokens = decoder.step()
            assert [t.finished for t in tokens] == [""]
            numbers = [decoder.submit(request) for request in asked]
        else:
            numbers = [decoder.submit(asked[0])]
            number = decoder.submit(failing)
            numbers += [decoder.submit(request) for request in asked[1:]]
            tokens = []
        tokens += drain(decoder)
    assert of(tokens, number)[-1].finished == "failed"
    assert "cannot be told apart" in str(of(tokens, number)[-1].error)
    for other, request in zip(numbers, asked, strict=True):
        assert [t.token for t in of(tokens, other)] == expected(llama, request)
    assert hooks(llama) == 0


def test_many_submits_and_cancels_leave_no_cache_row_edit_or_hook_behind(llama: Model) -> None:
    chance = random.Random(1)
    kinds = requests(llama)
    decoder = Decoder(llama, rows=4)
    open_numbers: set[int] = set()
    for _ in range(200):
        if chance.random() < 0.5:
            request = replace(chance.choice(kinds), tokens=chance.randint(1, 8))
            open_numbers.add(decoder.submit(request))
        elif open_numbers and chance.random() < 0.5:
            number = chance.choice(sorted(open_numbers))
            decoder.cancel(number)
            open_numbers.discard(number)
        for token in decoder.step() if chance.random() < 0.5 else []:
            assert token.request in open_numbers
            if token.finished:
                open_numbers.discard(token.request)
    assert {token.request for token in drain(decoder) if token.finished} == open_numbers
    assert (decoder.waiting, decoder.running, decoder.idle, hooks(llama)) == (0, 0, True, 0)
    edits = [weakref.ref(r.candidate.enhancement) for r in kinds if r.candidate.enhancement is not None]
    del kinds, request
    gc.collect()
    assert not any(type(thing) is batch_cache._BatchLayer for thing in gc.get_objects())
    assert all(edit() is None for edit in edits)


def test_hooks_are_on_the_network_only_inside_a_step(llama: Model) -> None:
    with Decoder(llama) as decoder:
        for request in requests(llama):
            decoder.submit(request)
        decoder.step()
        assert decoder.running == len(PROMPTS)
        assert hooks(llama) == 0
        assert expected(llama, replace(requests(llama)[0], candidate=BASE)) != expected(llama, requests(llama)[0])
    assert decoder.idle


def test_other_threads_may_submit_and_cancel(llama: Model) -> None:
    request, numbers = requests(llama)[0], []

    def ask() -> None:
        for index in range(20):
            numbers.append(decoder.submit(request))
            if index % 3 == 0:
                decoder.cancel(numbers[-1])

    with Decoder(llama, rows=4) as decoder:
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        tokens = []
        while any(thread.is_alive() for thread in threads) or not decoder.idle:
            tokens += decoder.step()
    complete = [n for n in numbers if len(of(tokens, n)) == TOKENS]
    assert sorted(set(numbers)) == list(range(40))
    assert len(complete) >= 40 - 14


def test_rotary_scales_that_follow_the_longest_row_are_not_batched(llama: Model) -> None:
    assert batches_rows(llama)
    llama.network.model.rotary_emb.rope_type = "longrope"
    assert not batches_rows(llama)
    assert Decoder(llama).rows == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": []}, "prompt is empty"),
        ({"prompt": [5, 300]}, r"outside 0\.\.299"),
        ({"prompt": [-1]}, r"outside 0\.\.299"),
        ({"tokens": 0}, "at least 1"),
        ({"tokens": 252}, "exceed the model's context of 256 tokens"),
        ({"candidate": Candidate("s", steering=torch.zeros(3, 31))}, "steering of 's'"),
    ],
)
def test_requests_that_cannot_be_run_are_refused(change: dict[str, object], message: str, llama: Model) -> None:
    request = DecodeRequest([5, 6, 7, 8, 9], BASE, TOKENS)
    with Decoder(llama) as decoder:
        with pytest.raises(InputError, match=message):
            decoder.submit(replace(request, **change))
        assert decoder.idle


def test_an_enhancement_of_another_model_is_refused(llama: Model, tiny_model: Models) -> None:
    foreign = Candidate("foreign", random_enhancement(tiny_model("gpt2"), 1.0))
    with pytest.raises(WrongModelError):
        Decoder(llama).submit(DecodeRequest([5], foreign, 3))


def test_a_decoder_needs_a_row(llama: Model) -> None:
    with pytest.raises(InputError, match="at least 1"):
        Decoder(llama, rows=0)


def test_the_context_may_be_filled_to_its_end(llama: Model) -> None:
    request = DecodeRequest(list(range(5, 245)), BASE, 16)
    assert decode(llama, [request])[0] == expected(llama, request)
