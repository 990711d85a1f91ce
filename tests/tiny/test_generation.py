"""Greedy answers: batched, streamed and one by one they are the same, whatever the checkpoint's own settings."""

import pytest
import torch

from burnish.checking import check, repetition
from burnish.model.model import Model
from burnish.model.streaming import stream
from burnish.prompts import Prompt, PromptSet
from conftest import Models, random_enhancement

PROMPTS = ["Hello", "Describe a lighthouse at dusk.", "Why?"]
EVERYDAY = PromptSet("everyday", tuple(Prompt.of(text) for text in PROMPTS))


@torch.inference_mode()
def argmax_loop(model: Model, prompt: str, tokens: int) -> list[int]:
    ids = model.tokens(prompt)
    start = len(ids)
    for _ in range(tokens):
        ids.append(int(model.network(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] in model.stop_tokens:
            return ids[start:-1]
    return ids[start:]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "qwen3_next"])
def test_batched_answers_are_the_argmax_of_each_alone(family: str, tiny_model: Models) -> None:
    model = tiny_model(family)
    expected = [argmax_loop(model, p, 8) for p in PROMPTS]
    assert model.continuations([model.tokens(p) for p in PROMPTS], 8) == expected


def test_the_checkpoints_penalties_and_sampling_do_not_matter(tiny_model: Models) -> None:
    model = tiny_model("llama", own=True)
    before = model.generate(PROMPTS, tokens=12)
    settings = model.network.generation_config
    settings.repetition_penalty, settings.do_sample, settings.top_k = 5.0, True, 3
    assert model.generate(PROMPTS, tokens=12) == before
    assert model.network.generation_config is settings


def test_streamed_pieces_make_the_same_answer(tiny_model: Models) -> None:
    model = tiny_model("llama")
    answer = model.tokenizer.decode(argmax_loop(model, "Hello", 12), skip_special_tokens=True)
    pieces = "".join(stream(model, "Hello", tokens=12))
    assert answer.startswith(pieces)  # a character still missing bytes at the end is held back
    assert pieces.strip("\ufffd") == answer.rstrip("\ufffd")


def test_a_template_without_a_system_turn_gets_the_words_in_the_first(tiny_model: Models) -> None:
    model = tiny_model("llama", own=True)
    assert model.render("Hello", system="Be brief.").startswith("<s><|system|>Be brief.")
    model.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "[{{ m['content'] }}]{% endfor %}"
    )
    assert model.render("Hello", system="Be brief.") == "[Be brief.\n\nHello]"


def test_repetition_counts_grams_seen_before() -> None:
    assert repetition([[1, 2, 3, 4, 5]]) == 0
    assert repetition([[1, 2, 1, 2, 1, 2]], n=2) == pytest.approx(3 / 5)
    assert repetition([[1, 2], []]) == 0


def test_a_check_of_nothing_is_zero_and_a_large_edit_is_too_strong(tiny_model: Models) -> None:
    model = tiny_model("llama")
    nothing = check(model, random_enhancement(model, 0.0), EVERYDAY, tokens=6)
    assert nothing.kl_mean < 1e-6
    assert nothing.top1_flips == 0
    assert nothing.verdict.startswith("fine")
    large = check(model, random_enhancement(model, 20.0), EVERYDAY, tokens=6)
    assert large.kl_mean > nothing.kl_mean
    assert large.verdict.startswith("too strong")
    small = check(model, random_enhancement(model, 0.1), EVERYDAY, tokens=6)
    assert 0 < small.kl_mean < large.kl_mean
