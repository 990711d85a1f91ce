"""The server as its clients see it: OpenAI's own client, and plain HTTP."""

import json
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from burnish.model.decoding import Decoder
from burnish.options import ServeOptions
from burnish.personal.enhancing import dose_gains
from burnish.personal.profile import Profile
from burnish.personal.store import Store
from burnish.tuning.material import template
from conftest import random_enhancement
from serving_example import Running, running, small_measurements

pytestmark = pytest.mark.enable_socket
PROMPT = "Describe the sea"
ASKED: dict[str, Any] = {
    "model": "base",
    "messages": [{"role": "user", "content": PROMPT}],
    "temperature": 0,
    "max_tokens": 8,
}


@pytest.fixture(scope="module")
def served(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests that leave it as it was."""
    with pytest.MonkeyPatch.context() as patch:
        small_measurements(patch)
        with running(tiny_folder("llama"), tmp_path_factory.mktemp("data")) as found:
            yield found


@pytest.fixture
def own(tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A server of the test's own."""
    small_measurements(monkeypatch)
    with running(tiny_folder("llama"), tmp_path) as found:
        yield found


def client(served: Running, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0, timeout=30)


def streamed(answers: Any) -> tuple[str, list[Any]]:
    chunks = list(answers)
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices), chunks


def test_chat_answers_as_the_model_alone_streamed_or_whole(served: Running) -> None:
    with client(served) as ai:
        whole = ai.chat.completions.create(**ASKED)
        text, chunks = streamed(
            ai.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True})
        )
    assert whole.choices[0].message.content == text == served.greedy(PROMPT, 8)
    assert whole.choices[0].message.role == chunks[0].choices[0].delta.role == "assistant"
    assert whole.choices[0].finish_reason == chunks[-2].choices[0].finish_reason == "length"
    prompt = len(served.reference.tokens(PROMPT))
    for usage in (whole.usage, chunks[-1].usage):
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (prompt, 8, prompt + 8)
    assert whole.model == "base"
    assert len({chunk.id for chunk in chunks}) == 1


def test_completions_continue_a_raw_prompt(served: Running) -> None:
    ids = served.reference.tokenizer("The sea")["input_ids"]
    with client(served) as ai:
        for prompt in ("The sea", ["The sea"], ids):
            whole = ai.completions.create(model="base", prompt=prompt, max_tokens=6, temperature=0)
            assert whole.choices[0].text == served.greedy(ids, 6)
        chunks = list(ai.completions.create(model="base", prompt=ids, max_tokens=6, temperature=0, stream=True))
    assert "".join(c.choices[0].text for c in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "length"


def test_an_answer_ends_before_a_stop_string_and_frees_its_row(served: Running) -> None:
    text = served.greedy(PROMPT, 40)
    stop = text[3:5]
    with client(served) as ai:
        asked = {**ASKED, "max_tokens": 40, "stop": ["\0never", stop]}
        whole = ai.chat.completions.create(**asked)
        found, chunks = streamed(ai.chat.completions.create(**asked, stream=True))
    assert whole.choices[0].message.content == found == text[: text.index(stop)]
    assert whole.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "stop"
    served.until_idle()


def test_an_answer_that_the_model_ends_is_stopped_and_its_last_token_is_not_counted(own: Running) -> None:
    ids = own.reference.tokens(PROMPT)
    answer = own.reference.continuations([ids], 8)[0]
    end = next(i for i in range(1, 8) if answer[i] not in answer[:i])
    own.service.model.stop_tokens = frozenset({answer[end]})
    with client(own) as ai:
        whole = ai.chat.completions.create(**ASKED)
    assert whole.choices[0].finish_reason == "stop"
    assert whole.choices[0].message.content == own.text(answer[:end])
    assert whole.usage is not None
    assert whole.usage.completion_tokens == end


def test_a_seed_repeats_an_answer_and_none_does_not(served: Running) -> None:
    asked = {**ASKED, "temperature": 1.5, "max_tokens": 20}
    with client(served) as ai:

        def text(**more: Any) -> str | None:
            return ai.chat.completions.create(**asked, **more).choices[0].message.content

        assert text(seed=7) == text(seed=7) != text(seed=8)
        assert text(seed=-1) == text(seed=-1)
        assert text(seed=7, top_p=1e-9) == served.greedy(PROMPT, 20)
        assert len({text(), text(), text()}) > 1


def test_log_probabilities_belong_to_the_tokens_of_the_text(served: Running) -> None:
    with client(served) as ai:
        whole = ai.chat.completions.create(**ASKED, logprobs=True)
        _, chunks = streamed(ai.chat.completions.create(**ASKED, logprobs=True, stream=True))
        plain = ai.completions.create(model="base", prompt="x", max_tokens=4, temperature=0, logprobs=0)
    assert whole.choices[0].logprobs is not None
    rows = whole.choices[0].logprobs.content
    assert rows is not None
    assert len(rows) == 8
    assert all(row.logprob <= 0 for row in rows)
    assert "".join(row.token for row in rows).startswith(whole.choices[0].message.content)
    again = [row for c in chunks if c.choices and c.choices[0].logprobs for row in c.choices[0].logprobs.content]
    assert [row.token for row in again] == [row.token for row in rows]
    assert [row.logprob for row in again] == pytest.approx([row.logprob for row in rows], abs=1e-4)
    assert plain.choices[0].logprobs is not None
    assert len(plain.choices[0].logprobs.token_logprobs or ()) == 4


def test_expressions_are_models_with_an_edit(served: Running) -> None:
    model, directions = served.service.model, served.service.directions
    tuned = directions.loaded["tuned"]
    plan = template([directions.editing["education"]])
    with client(served) as ai:

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


def test_models_are_listed_and_found(own: Running) -> None:
    own.service.store.add(own.service.local, Profile("1", "my own"))
    with client(own) as ai:
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
        ({"model": "base+unknown"}, openai.NotFoundError, "model_not_found", "model"),
        ({"model": "base+0.5"}, openai.BadRequestError, "invalid_expression", "model"),
        ({"model": "base - 3 tuned"}, openai.BadRequestError, "invalid_expression", "model"),
        ({"n": 2}, openai.BadRequestError, "invalid_value", "n"),
        ({"temperature": 9}, openai.BadRequestError, "invalid_value", "temperature"),
        (
            {"messages": [{"role": "user", "content": "x" * 400}]},
            openai.BadRequestError,
            "context_length_exceeded",
            "messages",
        ),
        ({"messages": []}, openai.BadRequestError, "invalid_value", "messages"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "invalid_value", "tools"),
    ],
)
def test_errors_are_those_of_openai(
    change: dict[str, Any], kind: type[Any], code: str, field: str, served: Running
) -> None:
    with client(served) as ai, pytest.raises(kind) as error:
        ai.chat.completions.create(**{**ASKED, **change})
    assert (error.value.code, error.value.param) == (code, field)


def test_an_edit_that_overflows_is_an_error_of_its_request_alone(
    tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    with (
        running(
            tiny_folder("llama"),
            tmp_path,
            loaded=lambda model: {
                "wild": random_enhancement(model, float("inf")),
                "tuned": random_enhancement(model, 4.0),
            },
        ) as served,
        client(served) as ai,
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
        found = http.post("/v1/completions", json=asked).json()
        assert found["usage"]["completion_tokens"] == 6
        assert found["choices"][0]["finish_reason"] == "length"
        assert http.post("/v1/completions", json={**asked, "prompt": ids * 2}).json()["error"]["code"] == (
            "context_length_exceeded"
        )
        del asked["max_tokens"]
        assert http.post("/v1/completions", json={**asked, "prompt": [5]}).json()["usage"]["completion_tokens"] == 64
        assert http.post("/v1/completions", json={**asked, "prompt": [5, 99999]}).status_code == 400


def test_concurrent_requests_are_each_answered_as_alone(served: Running) -> None:
    tuned = served.service.directions.loaded["tuned"]
    scales = [round(0.1 * i, 1) for i in range(1, 13)]
    prompts = [f"{PROMPT} {'again ' * (i % 5)}" for i in range(len(scales))]
    with client(served) as ai, ThreadPoolExecutor(len(scales)) as pool:

        def ask(scale: float, prompt: str) -> str:
            asked = {**ASKED, "model": f"base+{scale} tuned", "messages": [{"role": "user", "content": prompt}]}
            return streamed(ai.chat.completions.create(**{**asked, "max_tokens": 24}, stream=True))[0]

        found = list(pool.map(ask, scales, prompts))
    expected = [served.greedy(p, 24, tuned.scaled(s)) for s, p in zip(scales, prompts, strict=True)]
    assert found == expected
    assert len(set(expected)) > 6


def test_a_reader_who_leaves_frees_the_row(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Decoder.step
    monkeypatch.setattr(Decoder, "step", lambda decoder: (time.sleep(0.02), step(decoder))[1])
    with served.client() as http:
        served.until_idle()
        body = {**ASKED, "max_tokens": 60}
        with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
            next(answer.iter_lines())
            assert served.service.engine.running == 1
        started = time.monotonic()
        served.until_idle()
        assert time.monotonic() - started < 0.6  # the whole answer takes 1.2 s
    with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=served.url, timeout=0.2) as impatient:
        impatient.post("/v1/chat/completions", json=body)
    started = time.monotonic()
    served.until_idle()
    assert time.monotonic() - started < 0.6


def test_keys_keep_people_apart(
    tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_measurements(monkeypatch)
    store = Store(tmp_path)
    (_, first), (_, second) = store.new_person(), store.new_person()
    with running(tiny_folder("llama"), tmp_path, keys=True) as served:
        with served.client() as http:
            for path in ("/healthz", "/readyz", "/"):
                assert http.get(path).status_code == 200
            for path in ("/v1/models", "/api/status", "/api/profiles", "/metrics", "/nothing"):
                refused = http.get(path)
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"] == "Bearer"
            for key in ("Bearer wrong", "Basic " + first, first, "Bearer", "Bearer \u00e9"):
                assert http.get("/api/status", headers={"Authorization": key.encode("latin-1")}).status_code == 401
        with served.client(first) as one, served.client(second) as two:
            assert one.post("/api/profiles", json={"name": "mine"}).status_code == 201
            one.put("/api/profiles/mine/sliders", json={"values": {"education": 2}})
            assert one.get("/api/profiles/mine").json()["sliders"] == {"education": 2}
            assert two.get("/api/profiles").json() == {"profiles": []}
            assert two.get("/api/profiles/mine").status_code == 404
            assert two.delete("/api/profiles/mine").status_code == 404
            assert two.put("/api/profiles/mine/sliders", json={"values": {}}).status_code == 404
            people = {c.get("/api/status").json()["person"] for c in (one, two)}
            assert len(people) == 2
        with client(served, second) as ai:
            with pytest.raises(openai.NotFoundError):
                ai.chat.completions.create(**{**ASKED, "model": "base+mine"})
            assert "base+mine" not in [m.id for m in ai.models.list()]
        with client(served, first) as ai:
            assert ai.chat.completions.create(**{**ASKED, "model": "base+mine"}).choices[0].message.content is not None
            assert "base+mine" in [m.id for m in ai.models.list()]
        with client(served, "wrong") as ai, pytest.raises(openai.AuthenticationError):
            ai.models.list()


def test_malformed_requests_are_refused_and_named(served: Running) -> None:
    with served.client() as http:

        def post(content: bytes, kind: str = "application/json") -> tuple[int, str]:
            found = http.post("/v1/chat/completions", content=content, headers={"Content-Type": kind})
            return found.status_code, found.json()["error"]["code"]

        for content in (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": "base"', b'"base"', b"[" * 100_000):
            assert post(content) == (400, "invalid_json"), content[:10]
        assert post(b"{}", "text/plain") == (400, "invalid_json")
        assert post(b"{}") == (400, "invalid_value")
        surrogate = b'{"model": "base", "messages": [{"role": "user", "content": "\\ud800"}]}'
        assert post(surrogate) == (400, "invalid_value")
        number = json.dumps({**ASKED, "temperature": float("nan")}).encode()
        assert post(number) == (400, "invalid_value")
        assert http.post("/v1/chat/completions", json={**ASKED, "user": "x", "no such field": [1]}).status_code == 200
        assert http.get("/v1/chat/completions").status_code == 405
        assert http.get("/docs").status_code == http.get("/openapi.json").status_code == 404
        assert http.get("/api/nothing").json()["error"]["code"] == "not_found"


def test_requests_that_are_too_large_are_refused_also_in_chunks(
    tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    options = ServeOptions(body_limit=10_000, tokens_limit=64, grace=1)
    with running(tiny_folder("llama"), tmp_path, options=options) as served, served.client() as http:
        large = json.dumps({**ASKED, "user": "x" * 20_000}).encode()

        def chunks() -> Iterator[bytes]:
            for start in range(0, len(large), 1000):
                yield large[start : start + 1000]

        for content in (large, chunks()):
            found = http.post("/v1/chat/completions", content=content, headers={"Content-Type": "application/json"})
            assert (found.status_code, found.json()["error"]["code"]) == (413, "body_too_large")
        assert http.post("/v1/chat/completions", json=ASKED).status_code == 200


def test_too_many_requests_are_refused_with_a_time_to_come_back(
    tiny_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    step = Decoder.step
    monkeypatch.setattr(Decoder, "step", lambda decoder: (time.sleep(0.02), step(decoder))[1])
    store = Store(tmp_path)
    keys = [store.new_person()[1] for _ in range(4)]
    options = ServeOptions(rows=1, waiting=2, per_person=2, tokens_limit=64, grace=1)
    with running(tiny_folder("llama"), tmp_path, options=options, keys=True) as served, ThreadPoolExecutor() as pool:

        def ask(key: str) -> httpx.Response:
            with served.client(key) as http:
                return http.post("/v1/chat/completions", json={**ASKED, "max_tokens": 15})

        opened = [pool.submit(ask, keys[0]) for _ in range(2)]
        while served.service.engine.running + served.service.engine.waiting < 2:
            time.sleep(0.005)
        mine = ask(keys[0])
        assert (mine.status_code, mine.json()["error"]["code"]) == (429, "too_many_requests")
        assert int(mine.headers["retry-after"]) >= 1
        opened.append(pool.submit(ask, keys[1]))
        while served.service.engine.waiting < 2:
            time.sleep(0.005)
        full = ask(keys[2])
        assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
        assert [f.result().status_code for f in opened] == [200] * 3
    assert caplog.text.count("vllm serve") == 1


def test_the_time_limit_ends_a_request(
    tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Decoder.step
    monkeypatch.setattr(Decoder, "step", lambda decoder: (time.sleep(0.03), step(decoder))[1])
    options = ServeOptions(time_limit=0.4, tokens_limit=64, grace=1)
    with running(tiny_folder("llama"), tmp_path, options=options) as served, served.client() as http:
        late = http.post("/v1/chat/completions", json={**ASKED, "max_tokens": 60})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "time_limit")
        lines = http.post("/v1/chat/completions", json={**ASKED, "max_tokens": 60, "stream": True}).text.split("\n\n")
        assert "time_limit" in lines[-2]
        assert "[DONE]" not in lines
        served.until_idle(1)


def test_foreign_hosts_and_sites_are_refused_and_every_reply_says_what_a_browser_may_do(served: Running) -> None:
    with served.client() as http:
        assert http.get("/api/status", headers={"Host": "evil.example"}).status_code == 400
        assert http.get("/", headers={"Host": "evil.example"}).status_code == 400
        foreign = http.post("/v1/chat/completions", json=ASKED, headers={"Origin": "http://evil.example"})
        assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "cross_site")
        own = http.get("/api/status", headers={"Origin": served.url})
        page = http.get("/")
        assert (own.status_code, page.status_code) == (200, 200)
        for found in (foreign, own, page, http.get("/nothing"), http.get("/api/status", headers={"Host": "x"})):
            assert found.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
            assert found.headers["x-content-type-options"] == "nosniff"
            assert found.headers["referrer-policy"] == "no-referrer"
            assert not [name for name in found.headers if name.startswith("access-control")]
        assert page.headers["cache-control"] == "no-cache"
        assert own.headers["cache-control"] == "no-store"


def test_an_unexpected_error_ends_running_requests_and_the_next_ones_are_served(
    own: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step = Decoder.step
    broken = threading.Event()

    def fail(decoder: Decoder) -> Any:
        time.sleep(0.01)
        if broken.is_set():
            broken.clear()
            raise RuntimeError(f"out of memory near '{PROMPT}'")
        return step(decoder)

    monkeypatch.setattr(Decoder, "step", fail)
    with own.client() as http:
        with http.stream("POST", "/v1/chat/completions", json={**ASKED, "max_tokens": 60, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            broken.set()
            events = [line for line in lines if line]
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "internal_error"
        broken.set()
        whole = http.post("/v1/chat/completions", json=ASKED)
        assert (whole.status_code, whole.json()["error"]["type"]) == (500, "server_error")
        good = http.post("/v1/chat/completions", json=ASKED)
        assert good.json()["choices"][0]["message"]["content"] == own.greedy(PROMPT, 8)
        assert "burnish_decoder_restarts 2.0" in http.get("/metrics").text
    assert "RuntimeError" in caplog.text
    assert PROMPT not in caplog.text


def test_an_unexpected_error_of_a_job_is_its_own(
    served: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError(PROMPT)

    monkeypatch.setattr("burnish.server.measuring.score", fail)
    with served.client() as http:
        found = http.post("/api/damage", json={"model": "base+tuned"})
        assert (found.status_code, found.json()["error"]["code"]) == (500, "internal_error")
        assert http.post("/v1/chat/completions", json=ASKED).status_code == 200
    assert "ZeroDivisionError" in caplog.text
    assert PROMPT not in caplog.text


def test_the_log_holds_no_prompt_and_no_answer(served: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with client(served) as ai, served.client() as http:
        text = ai.chat.completions.create(**ASKED).choices[0].message.content
        http.post("/v1/chat/completions", json={**ASKED, "n": 3})
        http.post("/v1/chat/completions", json={**ASKED, "model": "base+unknown"})
        http.post("/api/tokens", json={"model": "base", "messages": ASKED["messages"], "answer": "a blue answer"})
    ours = "\n".join(r.getMessage() for r in caplog.records if not r.name.startswith(("openai", "httpx", "httpcore")))
    for secret in (PROMPT, text, "a blue answer"):
        assert secret
        assert secret not in ours


def test_metrics_can_be_read_and_count(own: Running) -> None:
    with own.client() as http:
        http.post("/v1/chat/completions", json=ASKED)
        http.post("/v1/chat/completions", json={})
        http.get("/a/path/of/anyone")
        found = http.get("/metrics")
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(found.text)
        for sample in family.samples
    }
    assert values["burnish_requests_total", "/v1/chat/completions", "200"] == 1
    assert values["burnish_requests_total", "/v1/chat/completions", "400"] == 1
    assert values["burnish_requests_total", "other", "404"] == 1
    assert values["burnish_tokens_total", "answer"] == 8
    assert values["burnish_tokens_total", "prompt"] == len(own.reference.tokens(PROMPT))
    assert values["burnish_first_token_seconds_count",] == 1
    assert values["burnish_running",] == values["burnish_waiting",] == 0
    assert found.headers["content-type"].startswith("text/plain")


def test_a_server_that_is_stopped_finishes_its_requests_and_takes_no_more(
    own: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Decoder.step
    monkeypatch.setattr(Decoder, "step", lambda decoder: (time.sleep(0.01), step(decoder))[1])
    with (
        own.client() as http,
        http.stream("POST", "/v1/chat/completions", json={**ASKED, "max_tokens": 40, "stream": True}) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        own.service.engine.refuse_new()
        with own.client() as other:
            refused = other.post("/v1/chat/completions", json=ASKED)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            assert refused.headers["retry-after"]
            assert other.get("/readyz").status_code == 503
            assert other.get("/healthz").status_code == 200
        own.server.should_exit = True
        events = [line.removeprefix("data: ") for line in lines if line]
    assert events[-1] == "[DONE]"
    text = "".join(json.loads(e)["choices"][0]["delta"].get("content", "") for e in events[:-1])
    assert text == own.greedy(PROMPT, 40)


def test_a_request_that_outlasts_the_grace_period_is_ended_with_an_error(
    tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Decoder.step
    monkeypatch.setattr(Decoder, "step", lambda decoder: (time.sleep(0.05), step(decoder))[1])
    options = ServeOptions(tokens_limit=64, grace=0.2)
    with running(tiny_folder("llama"), tmp_path, options=options) as served, served.client() as http:
        body = {**ASKED, "max_tokens": 60, "stream": True}
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            served.server.should_exit = True
            events = [line.removeprefix("data: ") for line in lines if line]
    assert json.loads(events[-1])["error"]["code"] == "shutting_down"


def test_a_server_that_is_stopped_twice_stops_at_once(
    tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Decoder.step
    monkeypatch.setattr(Decoder, "step", lambda decoder: (time.sleep(0.1), step(decoder))[1])
    options = ServeOptions(tokens_limit=64, grace=60)
    body = {**ASKED, "max_tokens": 60, "stream": True}
    with (
        running(tiny_folder("llama"), tmp_path, options=options) as served,
        served.client() as http,
        http.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        next(answer.iter_lines())
        started = time.monotonic()
        served.server.should_exit = True
        time.sleep(0.3)
        served.server.force_exit = True
        while served.service.engine._thread.is_alive():
            time.sleep(0.01)
        assert time.monotonic() - started < 2


def test_a_client_that_is_killed_in_the_middle_of_its_body_leaves_nothing_open(served: Running) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 500\r\n\r\n{"model": "base", '
        )
        while not served.service.open_requests:
            time.sleep(0.005)
    served.until_idle(2)


def test_models_without_a_chat_template_are_served(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    with running(tiny_folder("gpt2", template=False), tmp_path) as served, client(served) as ai:
        found = ai.chat.completions.create(**ASKED)
        assert found.choices[0].message.content == served.greedy(PROMPT, 8)


def test_models_that_take_one_request_at_a_time_answer_all(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    with running(tiny_folder("mistral"), tmp_path) as served, client(served) as ai, ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda _: ai.chat.completions.create(**ASKED).choices[0].message.content, range(3)))
        assert found == [served.greedy(PROMPT, 8)] * 3


def test_no_body_whatsoever_is_an_error_of_the_server(served: Running) -> None:
    chance = random.Random(0)
    words = [
        "base",
        "base+tuned",
        "base+education",
        "base+",
        "",
        "x",
        "\u0000",
        "a" * 300,
        '"',
        "바다",
        "../..",
        "user",
        "system",
    ]

    def value(depth: int = 0) -> Any:
        kinds = [None, True, 0, 1, -1, 0.5, 1e308, 2**70, *words, "text", [], {}]
        if depth < 3 and chance.random() < 0.4:
            return [value(depth + 1) for _ in range(chance.randint(0, 3))]
        if depth < 3 and chance.random() < 0.4:
            return {chance.choice(["role", "content", "type", "text", *words]): value(depth + 1) for _ in range(3)}
        return chance.choice(kinds)

    good: dict[str, Any] = {
        "messages": [{"role": "user", "content": "hi"}],
        "prompt": "hi",
        "answer": "yes",
        "name": "mine",
        "values": {},
        "first": "a",
        "second": "b",
        "outcome": 1,
        "max_tokens": 3,
    }
    fields = [
        *good,
        "model",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "logprobs",
        "tools",
        "n",
    ]
    paths = ["/v1/chat/completions", "/v1/completions", "/api/damage", "/api/dose", "/api/tokens", "/api/profiles"]
    paths += [f"/api/profiles/mine/{what}" for what in ("sliders", "pair", "choices", "undo")] + [
        "/api/profiles/%2e%2e"
    ]
    with served.client() as http:
        for _ in range(100):
            body = {"model": chance.choice(["base", "base+tuned", "base+0.1 education"]), **good}
            for field in chance.sample(fields, chance.randint(1, 4)):
                body[field] = value()
            path = chance.choice(paths)
            found = http.request("PUT" if path.endswith("sliders") else "POST", path, json=body)
            assert found.status_code in (200, 201, 400, 404, 405, 409), (path, body, found.text)
            if found.status_code >= 400:
                assert found.json()["error"].keys() == {"message", "type", "param", "code"}
        http.delete("/api/profiles/mine")
    served.until_idle()
