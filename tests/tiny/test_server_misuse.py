"""What must not be possible, and what a server says to it."""

import json
import logging
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from burnish.errors import ModelError
from burnish.model.decoding import Decoder
from burnish.options import ServeOptions
from burnish.personal.store import Store
from burnish.server.wire import ChatRequest
from conftest import Folders
from serving_example import ASKED, PROMPT, Running, running, small_measurements

TIMES = int(os.environ.get("BURNISH_FUZZ", "1"))  # as many as in the long run of the tests

# Its models never stop, otherwise than their files say: what they answer is not for the cache of all.
pytestmark = [pytest.mark.enable_socket, pytest.mark.usefixtures("own_cache")]


def test_keys_keep_people_apart(tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        with served.openai(second) as ai:
            with pytest.raises(openai.NotFoundError):
                ai.chat.completions.create(**{**ASKED, "model": "base+mine"})
            assert "base+mine" not in [m.id for m in ai.models.list()]
        with served.openai(first) as ai:
            assert ai.chat.completions.create(**{**ASKED, "model": "base+mine"}).choices[0].message.content is not None
            assert "base+mine" in [m.id for m in ai.models.list()]
        with served.openai("wrong") as ai, pytest.raises(openai.AuthenticationError):
            ai.models.list()


def test_malformed_requests_are_refused_and_named(served: Running) -> None:
    with served.client() as http:

        def post(content: bytes, kind: str = "application/json") -> tuple[int, str]:
            reply = http.post("/v1/chat/completions", content=content, headers={"Content-Type": kind})
            return reply.status_code, reply.json()["error"]["code"]

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


def test_requests_that_are_too_large_are_refused_also_in_chunks(served: Running) -> None:
    with served.client() as http:
        large = json.dumps({**ASKED, "user": "x" * served.service.options.body_limit}).encode()
        for content in (large, iter([large[:1000], large[1000:]])):
            reply = http.post("/v1/chat/completions", content=content, headers={"Content-Type": "application/json"})
            assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")
        assert http.post("/v1/chat/completions", json=ASKED).status_code == 200


def test_too_many_requests_are_refused_with_a_time_to_come_back(
    tiny_folder: Folders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    step, goes_on = Decoder.step, threading.Event()
    monkeypatch.setattr(Decoder, "step", lambda decoder: (goes_on.wait(30), step(decoder))[1])
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
        goes_on.set()
        assert [f.result().status_code for f in opened] == [200] * 3
    assert caplog.text.count("vllm serve") == 1


def test_the_time_limit_ends_a_request(tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Decoder.step
    monkeypatch.setattr(Decoder, "step", lambda decoder: (time.sleep(0.03), step(decoder))[1])
    options = ServeOptions(time_limit=0.4, tokens_limit=64, grace=1)
    with running(tiny_folder("llama"), tmp_path, options=options) as served, served.client() as http:
        late = http.post("/v1/chat/completions", json={**ASKED, "max_tokens": 60})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "time_limit")
        lines = http.post("/v1/chat/completions", json={**ASKED, "max_tokens": 60, "stream": True}).text.split("\n\n")
        assert "time_limit" in lines[-2]
        assert "[DONE]" not in lines
        served.until_idle()


def test_foreign_hosts_and_sites_are_refused_and_every_reply_says_what_a_browser_may_do(served: Running) -> None:
    with served.client() as http:
        assert http.get("/api/status", headers={"Host": "evil.example"}).status_code == 400
        assert http.get("/", headers={"Host": "evil.example"}).status_code == 400
        foreign = http.post("/v1/chat/completions", json=ASKED, headers={"Origin": "http://evil.example"})
        assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "cross_site")
        local = http.get("/api/status", headers={"Origin": served.url})
        page = http.get("/")
        assert (local.status_code, page.status_code) == (200, 200)
        for reply in (foreign, local, page, http.get("/nothing"), http.get("/api/status", headers={"Host": "x"})):
            assert reply.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["referrer-policy"] == "no-referrer"
            assert not [name for name in reply.headers if name.startswith("access-control")]
        assert page.headers["cache-control"] == "no-cache"
        assert local.headers["cache-control"] == "no-store"


def test_an_unexpected_error_ends_running_requests_and_the_next_ones_are_served(
    lone: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step = Decoder.step
    broken = threading.Event()
    steps: list[Decoder] = []

    def fail(decoder: Decoder) -> Any:
        steps.append(decoder)
        if len(steps) == 2:  # the first answer has begun and does not end before the error
            broken.wait(30)
        if broken.is_set():
            broken.clear()
            raise RuntimeError(f"out of memory near '{PROMPT}'")
        return step(decoder)

    monkeypatch.setattr(Decoder, "step", fail)
    with lone.client() as http:
        with http.stream("POST", "/v1/chat/completions", json={**ASKED, "max_tokens": 60, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            broken.set()
            events = [line for line in lines if line]
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "internal_error"
        broken.set()
        failed = http.post("/v1/chat/completions", json=ASKED)
        assert (failed.status_code, failed.json()["error"]["type"]) == (500, "server_error")
        good = http.post("/v1/chat/completions", json=ASKED)
        assert good.json()["choices"][0]["message"]["content"] == lone.greedy(PROMPT, 8)
        assert "burnish_decoder_restarts 2.0" in http.get("/metrics").text
    assert "RuntimeError" in caplog.text
    assert PROMPT not in caplog.text


def test_an_unexpected_error_of_a_job_is_its_own(
    served: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError(PROMPT)

    monkeypatch.setattr("burnish.explaining.dose.score", fail)
    with served.client() as http:
        reply = http.post("/api/damage", json={"model": "base+tuned"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
        assert http.post("/v1/chat/completions", json=ASKED).status_code == 200
    assert "ZeroDivisionError" in caplog.text
    assert PROMPT not in caplog.text


def test_the_log_holds_no_prompt_and_no_answer(served: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with served.openai() as ai, served.client() as http:
        text = ai.chat.completions.create(**ASKED).choices[0].message.content
        http.post("/v1/chat/completions", json={**ASKED, "n": 3})
        http.post("/v1/chat/completions", json={**ASKED, "model": "base+unknown"})
    ours = "\n".join(r.getMessage() for r in caplog.records if not r.name.startswith(("openai", "httpx", "httpcore")))
    for secret in (PROMPT, text):
        assert secret
        assert secret not in ours


@pytest.mark.parametrize("bodies", [40, pytest.param(3000 * TIMES, marks=pytest.mark.full)])
def test_no_body_whatsoever_is_an_error_of_the_server(bodies: int, served: Running) -> None:
    chance = random.Random(bodies)
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
    fields = [*good, *ChatRequest.model_fields]
    paths = ["/v1/chat/completions", "/v1/completions", "/api/damage", "/api/dose", "/api/profiles"]
    paths += [f"/api/profiles/mine/{what}" for what in ("sliders", "pair", "choices", "undo")] + [
        "/api/profiles/%2e%2e"
    ]
    with served.client() as http:
        for _ in range(bodies):
            body = {"model": chance.choice(["base", "base+tuned", "base+0.1 education"]), **good}
            for field in chance.sample(fields, chance.randint(1, 4)):
                body[field] = value()
            path = chance.choice(paths)
            reply = http.request("PUT" if path.endswith("sliders") else "POST", path, json=body)
            assert reply.status_code in (200, 201, 400, 404, 405, 409), (path, body, reply.text)
            if reply.status_code >= 400:
                assert reply.json()["error"].keys() == {"message", "type", "param", "code"}
                assert str(served.reference.folder) not in reply.text
        http.delete("/api/profiles/mine")
    served.until_idle()


@pytest.mark.parametrize(
    ("path", "change", "words", "param"),
    [
        ("completions", {"prompt": [5, 99999]}, "0..299", "prompt"),
        ("completions", {"prompt": [5, -1]}, "0..299", "prompt"),
        ("completions", {"prompt": "sea " * 400}, "context of 256", "prompt"),
        ("chat/completions", {"messages": [{"role": "user", "content": "sea " * 400}]}, "context of 256", "messages"),
        (
            "chat/completions",
            {"messages": [*ASKED["messages"], {"role": "assistant", "content": None}]},
            "`messages[1].content`: Send a text",
            "messages",
        ),
    ],
)
def test_a_refusal_says_what_was_sent_and_nothing_of_the_server(
    path: str, change: dict[str, Any], words: str, param: str, served: Running
) -> None:
    with served.client() as http:
        reply = http.post(f"/v1/{path}", json={"model": "base", "max_tokens": 2, **change})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert words in error["message"]
    assert error["param"] == param
    assert str(served.service.model.folder) not in reply.text
    assert "model.tokens" not in reply.text


def test_errors_name_no_path_of_the_server(served: Running) -> None:
    model = served.service.model
    private = ModelError(f"{model.name} and {model.folder / 'config.json'} cannot be read.")
    assert str(served.service.public(private)) == "the model and the model/config.json cannot be read."
