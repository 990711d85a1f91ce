"""Counting, and ending in order."""

import json
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from burnish.model.decoding import Decoder
from burnish.options import ServeOptions
from conftest import Folders
from serving_example import ASKED, PROMPT, Running, running

# Its models never stop, otherwise than their files say: what they answer is not for the cache of all.
pytestmark = [pytest.mark.enable_socket, pytest.mark.usefixtures("own_cache")]


def test_metrics_can_be_read_and_count(lone: Running) -> None:
    with lone.client() as http:
        http.post("/v1/chat/completions", json=ASKED)
        http.post("/v1/chat/completions", json={})
        http.get("/a/path/of/anyone")
        metrics = http.get("/metrics")
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text)
        for sample in family.samples
    }
    assert values["burnish_requests_total", "/v1/chat/completions", "200"] == 1
    assert values["burnish_requests_total", "/v1/chat/completions", "400"] == 1
    assert values["burnish_requests_total", "other", "404"] == 1
    assert values["burnish_tokens_total", "answer"] == 8
    assert values["burnish_tokens_total", "prompt"] == len(lone.reference.tokens(PROMPT))
    assert values["burnish_first_token_seconds_count",] == 1
    assert values["burnish_running",] == values["burnish_waiting",] == 0
    assert metrics.headers["content-type"].startswith("text/plain")


def test_a_server_that_is_stopped_finishes_its_requests_and_takes_no_more(
    lone: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Decoder.step
    monkeypatch.setattr(Decoder, "step", lambda decoder: (time.sleep(0.01), step(decoder))[1])
    with (
        lone.client() as http,
        http.stream("POST", "/v1/chat/completions", json={**ASKED, "max_tokens": 40, "stream": True}) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        lone.service.engine.refuse_new()
        with lone.client() as other:
            refused = other.post("/v1/chat/completions", json=ASKED)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            assert refused.headers["retry-after"]
            assert other.get("/readyz").status_code == 503
            assert other.get("/healthz").status_code == 200
        lone.server.should_exit = True
        events = [line.removeprefix("data: ") for line in lines if line]
    assert events[-1] == "[DONE]"
    text = "".join(json.loads(e)["choices"][0]["delta"].get("content", "") for e in events[:-1])
    assert text == lone.greedy(PROMPT, 40)


def test_a_request_that_outlasts_the_grace_period_is_ended_with_an_error(
    tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        assert time.monotonic() - started < 5  # the whole answer takes 6 s
