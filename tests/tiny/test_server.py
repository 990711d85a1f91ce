"""The server as OpenAI's own client sees it: answers equal the model's own."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from burnish.artifacts.direction import Enhancement
from burnish.model.decoding import Decoder
from burnish.personal.enhancing import dose_gains
from burnish.personal.profile import Profile
from conftest import Folders, random_enhancement
from serving_example import ASKED, PROMPT, Running, running

# Its models never stop, otherwise than their files say: what they answer is not for the cache of all.
pytestmark = [pytest.mark.enable_socket, pytest.mark.usefixtures("own_cache")]


def streamed(answers: Any) -> tuple[str, list[Any]]:
    chunks = list(answers)
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices), chunks


def test_chat_answers_as_the_model_alone_streamed_or_whole(served: Running) -> None:
    with served.openai() as ai:
        complete = ai.chat.completions.create(**ASKED)
        text, chunks = streamed(
            ai.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True})
        )
    assert complete.choices[0].message.content == text == served.greedy(PROMPT, 8)
    assert complete.choices[0].message.role == chunks[0].choices[0].delta.role == "assistant"
    assert complete.choices[0].finish_reason == chunks[-2].choices[0].finish_reason == "length"
    prompt = len(served.reference.tokens(PROMPT))
    for usage in (complete.usage, chunks[-1].usage):
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (prompt, 8, prompt + 8)
    assert complete.model == "base"
    assert len({chunk.id for chunk in chunks}) == 1


def test_completions_continue_a_raw_prompt(served: Running) -> None:
    ids = served.reference.tokenizer("The sea")["input_ids"]
    with served.openai() as ai:
        for prompt in ("The sea", ["The sea"], ids):
            complete = ai.completions.create(model="base", prompt=prompt, max_tokens=6, temperature=0)
            assert complete.choices[0].text == served.greedy(ids, 6)
        chunks = list(ai.completions.create(model="base", prompt=ids, max_tokens=6, temperature=0, stream=True))
    assert "".join(c.choices[0].text for c in chunks) == complete.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "length"


def test_an_answer_ends_before_a_stop_string_and_frees_its_row(served: Running) -> None:
    text = served.greedy(PROMPT, 40)
    stop = text[3:5]
    with served.openai() as ai:
        asked = {**ASKED, "max_tokens": 40, "stop": ["\0never", stop]}
        complete = ai.chat.completions.create(**asked)
        streamed_text, chunks = streamed(ai.chat.completions.create(**asked, stream=True))
    assert complete.choices[0].message.content == streamed_text == text[: text.index(stop)]
    assert complete.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "stop"
    served.until_idle()


def test_an_answer_that_the_model_ends_is_stopped_and_its_last_token_is_not_counted(lone: Running) -> None:
    ids = lone.reference.tokens(PROMPT)
    answer = lone.reference.continuations([ids], 8)[0]
    end = next(i for i in range(1, 8) if answer[i] not in answer[:i])
    lone.service.model.stop_tokens = frozenset({answer[end]})
    with lone.openai() as ai:
        complete = ai.chat.completions.create(**ASKED)
    assert complete.choices[0].finish_reason == "stop"
    assert complete.choices[0].message.content == lone.text(answer[:end])
    assert complete.usage is not None
    assert complete.usage.completion_tokens == end


def test_a_seed_repeats_an_answer_and_none_does_not(served: Running) -> None:
    asked = {**ASKED, "temperature": 1.5, "max_tokens": 20}
    with served.openai() as ai:

        def text(**more: Any) -> str | None:
            return ai.chat.completions.create(**asked, **more).choices[0].message.content

        assert text(seed=7) == text(seed=7) != text(seed=8)
        assert text(seed=-1) == text(seed=-1)
        assert text(seed=7, top_p=1e-9) == served.greedy(PROMPT, 20)
        assert len({text(), text(), text()}) > 1


def test_log_probabilities_belong_to_the_tokens_of_the_text(served: Running) -> None:
    with served.openai() as ai:
        complete = ai.chat.completions.create(**ASKED, logprobs=True)
        _, chunks = streamed(ai.chat.completions.create(**ASKED, logprobs=True, stream=True))
        plain = ai.completions.create(model="base", prompt="x", max_tokens=4, temperature=0, logprobs=0)
    assert complete.choices[0].logprobs is not None
    rows = complete.choices[0].logprobs.content
    assert rows is not None
    assert len(rows) == 8
    assert all(row.logprob <= 0 for row in rows)
    assert "".join(row.token for row in rows).startswith(complete.choices[0].message.content)
    again = [row for c in chunks if c.choices and c.choices[0].logprobs for row in c.choices[0].logprobs.content]
    assert [row.token for row in again] == [row.token for row in rows]
    assert [row.logprob for row in again] == pytest.approx([row.logprob for row in rows], abs=1e-4)
    assert plain.choices[0].logprobs is not None
    assert len(plain.choices[0].logprobs.token_logprobs or ()) == 4


def test_expressions_are_models_with_an_edit(served: Running) -> None:
    model, directions = served.service.model, served.service.directions
    tuned = directions.loaded["tuned"]
    plan = Enhancement.of([directions.editing["education"]])
    with served.openai() as ai:

        def text(expression: str) -> str | None:
            return ai.chat.completions.create(**{**ASKED, "model": expression}).choices[0].message.content

        assert text("base+tuned") == served.greedy(PROMPT, 8, tuned) != text("base")
        assert text("base+0.5 tuned") == served.greedy(PROMPT, 8, tuned.scaled(0.5))
        dose = text("base+20 education")
        gains = dose_gains(directions.writes(model, "en"), plan.vectors, torch.tensor([20.0]))
        one = type(plan)(plan.vectors, gains, plan.directions)
        assert dose == served.greedy(PROMPT, 8, one)
        assert text("base+20 education + 0.5 tuned") == served.greedy(PROMPT, 8, tuned.scaled(0.5).combined(one))
        assert text("base") == served.greedy(PROMPT, 8)


def test_models_are_listed_and_found(lone: Running) -> None:
    lone.service.store.add(lone.service.local, Profile("1", "my own"))
    with lone.openai() as ai:
        listed = [m.id for m in ai.models.list()]
        assert listed == ["base", "base+tuned", 'base+"my own"', "base+education", "base+formal-casual"]
        for name in [*listed, "base+0.5 education - 0.2 formal-casual"]:
            assert ai.models.retrieve(name).id == name
        with pytest.raises(openai.NotFoundError):
            ai.models.retrieve("base+nothing")


@pytest.mark.parametrize(
    ("change", "kind", "code", "field"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, "model_not_found", "model"),
        ({"model": "base - 3 tuned"}, openai.BadRequestError, "invalid_expression", "model"),
        ({"n": 2}, openai.BadRequestError, "invalid_value", "n"),
        (
            {"messages": [{"role": "user", "content": "x" * 400}]},
            openai.BadRequestError,
            "context_length_exceeded",
            "messages",
        ),
    ],
)
def test_errors_are_those_of_openai(
    change: dict[str, Any], kind: type[Any], code: str, field: str, served: Running
) -> None:
    with served.openai() as ai, pytest.raises(kind) as error:
        ai.chat.completions.create(**{**ASKED, **change})
    assert (error.value.code, error.value.param) == (code, field)


def test_an_edit_that_overflows_is_an_error_of_its_request_alone(tiny_folder: Folders, tmp_path: Path) -> None:
    with (
        running(
            tiny_folder("llama"), tmp_path, loaded=lambda m: {"wild": random_enhancement(m, float("inf"))}
        ) as served,
        served.openai() as ai,
        ThreadPoolExecutor() as pool,
    ):
        good = pool.submit(lambda: ai.chat.completions.create(**{**ASKED, "max_tokens": 60}))
        with pytest.raises(openai.BadRequestError, match="not finite"):
            ai.chat.completions.create(**{**ASKED, "model": "base+wild"})
        assert good.result().choices[0].message.content == served.greedy(PROMPT, 60)


def test_answers_fill_the_context_and_no_more(served: Running) -> None:
    with served.client() as http:
        ids = list(range(3, 3 + 250))
        asked = {"model": "base", "prompt": ids, "temperature": 0, "max_tokens": 50}
        reply = http.post("/v1/completions", json=asked).json()
        assert reply["usage"]["completion_tokens"] == 6
        assert reply["choices"][0]["finish_reason"] == "length"
        del asked["max_tokens"]
        assert http.post("/v1/completions", json={**asked, "prompt": [5]}).json()["usage"]["completion_tokens"] == 64


def test_a_reader_who_leaves_frees_the_row(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Decoder.step
    steps: list[Decoder] = []
    monkeypatch.setattr(Decoder, "step", lambda decoder: (time.sleep(0.1), steps.append(decoder), step(decoder))[-1])
    with served.client() as http:
        served.until_idle()
        body = {**ASKED, "max_tokens": 60}
        with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
            next(answer.iter_lines())
            assert served.service.engine.running == 1
        served.until_idle()
        assert len(steps) < 60  # of the whole answer
    steps.clear()
    soon = httpx.Timeout(30, read=0.2)
    with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=served.url, timeout=soon) as impatient:
        impatient.post("/v1/chat/completions", json=body)
    served.until_idle()
    assert len(steps) < 60


def test_models_without_a_chat_template_are_served(tiny_folder: Folders, tmp_path: Path) -> None:
    with running(tiny_folder("gpt2", template=False), tmp_path) as served, served.openai() as ai:
        reply = ai.chat.completions.create(**ASKED)
        assert reply.choices[0].message.content == served.greedy(PROMPT, 8)


def test_models_that_take_one_request_at_a_time_answer_all(tiny_folder: Folders, tmp_path: Path) -> None:
    with running(tiny_folder("mistral"), tmp_path) as served, served.openai() as ai, ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: ai.chat.completions.create(**ASKED).choices[0].message.content, range(3)))
        assert answers == [served.greedy(PROMPT, 8)] * 3
