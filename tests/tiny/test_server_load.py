"""Many clients at once, some of which misbehave: nothing leaks, and every answer is the one that was asked for."""

import json
import random
import socket
import struct
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from burnish.options import ServeOptions
from burnish.personal.store import Store, new_profile
from conftest import Folders
from serving_example import Running, running, small_measurements, within_budget

# Its models never stop, otherwise than their files say: what they answer is not for the cache of all.
pytestmark = [pytest.mark.enable_socket, pytest.mark.usefixtures("own_cache")]
CLIENTS, PEOPLE = 8, 3
MALFORMED = [
    b"{",
    b"[]",
    b'{"model": 5}',
    b'{"model": "base+unknown", "messages": [{"role": "user", "content": "x"}]}',
    b"\xff",
]
PROMPTS = ["Hello", "Describe the sea and the lighthouse", "Why?"]


def body(model: str, prompt: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": 8, **more}


def text_of(stream: str) -> str:
    events = [line.removeprefix("data: ") for line in stream.split("\n") if line]
    assert events[-1] == "[DONE]"
    return "".join(json.loads(e)["choices"][0]["delta"].get("content", "") for e in events[:-1])


def reset(url: str, key: str, content: bytes) -> None:
    """A client that is killed: the connection is reset while the request is on its way or answered."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        raw.sendall(
            f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
        )


def one(served: Running, http: httpx.Client, key: str, seen: Counter[str], answers: list[Any], seed: int) -> None:
    """One request of a kind drawn by its seed."""
    chance = random.Random(seed)
    model, prompt = chance.choice(["base", "base+tuned", "base+0.5 tuned", "base+mine"]), chance.choice(PROMPTS)
    kind = chance.choices(["whole", "stream", "leave", "malformed", "killed", "half"], [30, 30, 15, 15, 5, 5])[0]
    seen[kind] += 1
    if kind == "killed":
        reset(served.url, key, json.dumps(body(model, prompt, max_tokens=60, stream=chance.random() < 0.5)).encode())
    elif kind == "half":
        reset(served.url, key, json.dumps(body(model, prompt)).encode()[:-9])
    elif kind == "malformed":
        headers = {"Content-Type": "application/json"}
        reply = http.post("/v1/chat/completions", content=chance.choice(MALFORMED), headers=headers)
        assert reply.status_code in (400, 404)
    elif kind == "leave":
        with http.stream(
            "POST", "/v1/chat/completions", json=body(model, prompt, max_tokens=60, stream=True)
        ) as answer:
            lines = answer.iter_lines()
            for _ in range(chance.randint(1, 9)):
                next(lines)
    else:
        reply = http.post("/v1/chat/completions", json=body(model, prompt, stream=kind == "stream"))
        assert reply.status_code == 200, reply.text
        text = text_of(reply.text) if kind == "stream" else reply.json()["choices"][0]["message"]["content"]
        answers.append((key, model, prompt, text))


@pytest.mark.parametrize("requests", [60, pytest.param(250, marks=pytest.mark.full)])
def test_many_clients_leave_nothing_behind_and_get_their_own_answers(
    requests: int, tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_measurements(monkeypatch)
    store = Store(tmp_path)
    people = [store.new_person() for _ in range(PEOPLE)]
    for person, _ in people:
        store.add(person, new_profile("mine", budget=0.5))
    options = ServeOptions(rows=4, waiting=CLIENTS * 2, per_person=CLIENTS * 2, tokens_limit=64, time_limit=30, grace=5)
    with running(tiny_folder("llama"), tmp_path, options=options, keys=True) as served:
        for number, (_, key) in enumerate(people):
            with served.client(key) as http:
                values = {"education": 10.0 * (number - 1), "formal-casual": 5.0}
                assert http.put("/api/profiles/mine/sliders", json={"values": values}).status_code == 200
        seen: Counter[str] = Counter()
        answers: list[Any] = []

        def client(number: int) -> None:
            key = people[number % PEOPLE][1]
            with served.client(key) as http:
                for seed in range(number, requests, CLIENTS):
                    one(served, http, key, seen, answers, seed)

        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(client, range(CLIENTS)))
        served.until_idle()
        assert seen.total() == requests
        assert len(seen) == 6
        engine = served.service.engine
        assert (engine.running, engine.waiting, engine.restarts, len(engine._left)) == (0, 0, 0, 0)
        assert not served.service.open_requests
        assert sum(len(m._forward_hooks) for m in engine.model.network.modules()) == 0
        expected = alone(served, people)
        assert len(answers) > requests / 3
        for key, model, prompt, text in answers:
            assert text == expected[key, model, prompt]
        assert len({expected[key, "base+mine", PROMPTS[1]] for _, key in people}) == PEOPLE
        with served.client(people[0][1]) as http:
            metrics = http.get("/metrics").text
        statuses = {
            line.split('status="')[1].split('"')[0] for line in metrics.splitlines() if "requests_total{" in line
        }
        assert statuses <= {"200", "400", "404", "499", "gone"}


def alone(served: Running, people: list[tuple[str, str]]) -> dict[tuple[str, str, str], str]:
    """What each is answered when nobody else asks, by the model apart from the server."""
    directions = served.service.directions
    tuned = directions.loaded["tuned"]
    answers = {}
    for person, key in people:
        profile = served.service.store.profile(person, "mine")
        mine = within_budget(served.reference, profile, directions.editing)
        edits = {"base": None, "base+tuned": tuned, "base+0.5 tuned": tuned.scaled(0.5), "base+mine": mine}
        for model, edit in edits.items():
            for prompt in PROMPTS:
                answers[key, model, prompt] = served.greedy(prompt, 8, edit)
    return answers
