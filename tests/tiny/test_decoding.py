"""Requests that share a batch are answered as each would be alone."""

import gc
import random
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from burnish.artifacts.lora import LoraAdapter, read_lora
from burnish.errors import InputError, ModelError, WrongModelError
from burnish.model import decoding, row_cache
from burnish.model.decoding import (
    Candidate,
    DecodedToken,
    Decoder,
    DecodeRequest,
    Sampling,
    batches_rows,
    decode,
)
from burnish.model.model import Model
from conftest import random_adapter, random_enhancement

Models = Callable[..., Model]
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
    found: list[DecodedToken] = []
    while not decoder.idle:
        found += decoder.step()
    return found


def of(tokens: Sequence[DecodedToken], number: int) -> list[DecodedToken]:
    return [token for token in tokens if token.request == number]


def alone(model: Model, request: DecodeRequest) -> list[DecodedToken]:
    with Decoder(model, rows=1) as decoder:
        decoder.submit(request)
        return drain(decoder)


def assert_same(found: Sequence[DecodedToken], reference: Sequence[DecodedToken]) -> None:
    """The same tokens and ends; log probabilities up to the rounding of products of another shape."""
    assert [(t.token, t.finished) for t in found] == [(t.token, t.finished) for t in reference]
    torch.testing.assert_close(
        torch.tensor([t.log_probability for t in found]),
        torch.tensor([t.log_probability for t in reference]),
        rtol=0,
        atol=1e-4,
        equal_nan=True,
    )


def hooks(model: Model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.network.modules())


@pytest.fixture
def llama(tiny_model: Models) -> Model:
    """A tiny model that never stops by itself."""
    model = tiny_model("llama")
    model.stop_tokens = frozenset()
    return model


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
        found = drain(decoder)
    for number, request in zip(numbers, asked, strict=True):
        own = of(found, number)
        answer = [token.token for token in own]
        reference = plain(model, request, answer)
        torch.testing.assert_close(torch.tensor([t.log_probability for t in own]), reference, rtol=1e-4, atol=1e-4)
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
    monkeypatch.setattr(row_cache, "BLOCK", block)
    sizes = [4, 20, 9, 15, 2]
    asked = [
        replace(r, tokens=n, log_probabilities=True)
        for r, n in zip([*requests(llama)[2:], *requests(llama)[:2]], sizes, strict=True)
    ]
    found, numbers = [], []
    with Decoder(llama, rows=4) as decoder:
        for request in asked:
            numbers.append(decoder.submit(request))
            found += decoder.step() + decoder.step()
        found += drain(decoder)
    for number, request in zip(numbers, asked, strict=True):
        assert_same(of(found, number), alone(llama, request))


def test_a_long_prompt_beside_running_rows_is_run_in_pieces_and_stops_nobody(
    llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "CPU_CHUNK", 8)
    first, long = (replace(r, log_probabilities=True) for r in requests(llama)[:2])
    first = replace(first, tokens=30)
    with Decoder(llama) as decoder:
        numbers = decoder.submit(first), decoder.submit(long)
        decoder.cancel(numbers[1])
        found = decoder.step()
        number = decoder.submit(long)
        while not of(found, number):
            found += (step := decoder.step())
            assert len(of(step, numbers[0])) == 1
        assert len(of(found, numbers[0])) == 1 + -(-len(long.prompt) // 8)
        found += drain(decoder)
    assert_same(of(found, numbers[0]), alone(llama, first))
    assert_same(of(found, number), alone(llama, long))


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
        found = decoder.step()
        assert decoder.running == 1
        assert not of(found + drain(decoder), number)


def test_base_rows_do_not_feel_enhanced_neighbours(llama: Model) -> None:
    asked = requests(llama, candidate=BASE, log_probabilities=True)
    strong = Candidate("strong", random_enhancement(llama, 5.0))
    mixed = [replace(r, candidate=strong) if i % 2 else r for i, r in enumerate(asked)]
    found = []
    for batch in (asked, mixed):
        with Decoder(llama) as decoder:
            numbers = [decoder.submit(request) for request in batch]
            tokens = drain(decoder)
            found.append([of(tokens, number) for number in numbers])
    for index in range(0, len(asked), 2):
        assert found[0][index] == found[1][index]  # to the last bit: the batches have the same shape
    assert found[0][1] != found[1][1]


def test_adapters_steering_and_enhancements_share_a_batch(tiny_model: Models, llama: Model, tmp_path: Path) -> None:
    adapted = tiny_model("llama")
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
        found = drain(decoder)
    for number, request in zip(numbers, asked, strict=True):
        assert_same(of(found, number), alone(llama, request))
    peft = replace(adapted, network=network)
    peft.stop_tokens = frozenset()
    assert [t.token for t in of(found, numbers[0])] == peft.continuations([asked[0].prompt], TOKENS)[0]


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
        found = [token.request for token in drain(decoder)]
    assert sorted(numbers, key=found.index) == numbers


def test_every_step_gives_each_running_row_one_token(llama: Model) -> None:
    with Decoder(llama, rows=3) as decoder:
        for request in requests(llama):
            decoder.submit(request)
        while not decoder.idle:
            found = [token.request for token in decoder.step()]
            assert len(found) == len(set(found))
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
        found = drain(decoder)
        again = decoder.submit(asked[0])  # in rows where the failed request has been
        assert [t.token for t in of(drain(decoder), again)] == expected(llama, asked[0])
    (failed,) = of(found, numbers[1])
    assert (failed.finished, failed.token) == ("failed", -1)
    assert "not finite under 'far too strong'" in str(failed.error)
    for number, request in list(zip(numbers, asked, strict=True))[::2]:
        assert [t.token for t in of(found, number)] == expected(llama, request)
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
            found = decoder.step()
            assert [t.finished for t in found] == [""]
            numbers = [decoder.submit(request) for request in asked]
        else:
            numbers = [decoder.submit(asked[0])]
            number = decoder.submit(failing)
            numbers += [decoder.submit(request) for request in asked[1:]]
            found = []
        found += drain(decoder)
    assert of(found, number)[-1].finished == "failed"
    assert "cannot be told apart" in str(of(found, number)[-1].error)
    for own, request in zip(numbers, asked, strict=True):
        assert [t.token for t in of(found, own)] == expected(llama, request)
    assert hooks(llama) == 0


def test_many_submits_and_cancels_leave_no_row_cache_edit_or_hook_behind(llama: Model) -> None:
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
    assert not any(type(thing) is row_cache._RowLayer for thing in gc.get_objects())
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
        found = []
        while any(thread.is_alive() for thread in threads) or not decoder.idle:
            found += decoder.step()
    whole = [n for n in numbers if len(of(found, n)) == TOKENS]
    assert sorted(set(numbers)) == list(range(40))
    assert len(whole) >= 40 - 14


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
        ({"tokens": 252}, "exceed the context of .*, 256 tokens"),
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
