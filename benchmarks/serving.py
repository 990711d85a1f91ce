"""`burnish serve` against the library's `generate`: SmolLM2-135M, float32, CPU; everything through HTTP.

python benchmarks/serving.py [--runs 5] [--threads 2] [--tokens 64] [--requests 500]

The server is a process of its own; both sides of a ratio are measured in turn, while the other one rests.
1. how fast one enhanced request decodes, against the library's `generate` of the plain model;
2. how much more 8 clients with 8 enhancements get together, against 8 `generate` calls in a row under live hooks;
3. how long the first token of a request takes that arrives while 8 others run, against an idle server;
4. many mixed requests from 16 clients, some of which leave early or send nonsense: statuses, times, memory, and what is left behind.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import measure
import psutil
import torch

CLIENTS = 8
CROWD = 16  # clients of the mixed requests
SHORT = 8  # tokens of a mixed request
HTTP = httpx.Client(timeout=600, limits=httpx.Limits(max_connections=None))  # as an application has: one, kept open
MALFORMED = [b"{", b"[]", b'{"model": 5}', b'{"model": "base+unknown", "messages": [{"role": "user", "content": "x"}]}']


@dataclass(frozen=True)
class Question:
    """A prompt, the edit it is answered under, and what the library's `generate` answers."""

    text: str
    model: str  # the server's expression
    enhancement: Any
    expected: str


@contextmanager
def served(plans: list[Path], threads: int) -> Iterator[tuple[str, psutil.Process]]:
    """(URL, process) of a server of the model with these enhancements."""
    command = [sys.executable, "-c", "from burnish.cli import main; main()", "serve", "smollm2-135m", "--no-profiles"]
    command += ["--dtype", "float32", "--port", "0", "--rows", str(CLIENTS + 1), "--per-person", str(4 * CROWD)]
    command += [part for plan in plans for part in ("--with", str(plan))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def generated(model: Any, text: str, enhancement: Any | None, tokens: int) -> list[int]:
    """What a script does: the library's `generate`, under live hooks where there is an enhancement."""
    if enhancement is None:
        return model.continuations([model.tokens(text)], tokens)[0]
    with model.enhanced(enhancement):
        return model.continuations([model.tokens(text)], tokens)[0]


def asked(question: Question, tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": question.text}]
    return {"model": question.model, "messages": messages, "temperature": 0, "max_tokens": tokens, "stream": True}


def streamed(
    url: str, body: dict[str, Any], *, leave_after: int | None = None, begun: Callable[[], object] = lambda: None
) -> tuple[str, float]:
    """(text, seconds to its first piece) of one request; leave_after: pieces that are read before the reader goes; begun: called
    with the first piece."""
    started, first, text = time.perf_counter(), float("nan"), ""
    with HTTP.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        for number, event in enumerate(line for line in answer.iter_lines() if line.startswith("data: {")):
            if number == 1:
                first = time.perf_counter() - started
                begun()
            text += json.loads(event[6:])["choices"][0]["delta"].get("content", "")
            if leave_after is not None and number >= leave_after:
                break
    return text, first


def together(url: str, questions: list[Question], tokens: int) -> list[str]:
    with ThreadPoolExecutor(len(questions)) as pool:
        return [text for text, _ in pool.map(lambda q: streamed(url, asked(q, tokens)), questions)]


def first_tokens(url: str, questions: list[Question], late: Question, tokens: int) -> tuple[float, float]:
    """(idle, while the questions are answered) seconds to the first piece of `late`."""
    idle = streamed(url, asked(late, 2))[1]
    all_run = threading.Barrier(len(questions) + 1)
    with ThreadPoolExecutor(len(questions)) as pool:
        running = [pool.submit(streamed, url, asked(q, tokens), begun=all_run.wait) for q in questions]
        all_run.wait()
        busy = streamed(url, asked(late, 2))[1]
        for answer in running:
            answer.result()
    return idle, busy


def crowd(url: str, questions: list[Question], count: int) -> tuple[Counter[str], list[float]]:
    """(how often each thing came out, seconds to first pieces) of mixed requests."""
    outcomes: Counter[str] = Counter()
    firsts: list[float] = []

    def one(seed: int) -> None:
        chance = random.Random(seed)
        question = chance.choice(questions)
        kind = chance.choices(["answered", "left early", "malformed"], [70, 15, 15])[0]
        if kind == "malformed":
            headers = {"Content-Type": "application/json"}
            reply = HTTP.post(f"{url}/v1/chat/completions", content=chance.choice(MALFORMED), headers=headers)
            outcomes[f"malformed: {reply.status_code}"] += 1
            return
        text, first = streamed(
            url, asked(question, SHORT), leave_after=chance.randint(1, 4) if kind == "left early" else None
        )
        firsts.append(first)
        if kind == "answered":
            kind += ", as alone" if question.expected.startswith(text) else ", otherwise than alone"
        outcomes[kind] += 1

    with ThreadPoolExecutor(CROWD) as pool:
        list(pool.map(one, range(count)))
    return outcomes, firsts


def left_behind(url: str) -> tuple[int, int]:
    """(running, waiting) once the last reader is gone."""
    time.sleep(1)
    lines = dict(line.rsplit(" ", 1) for line in HTTP.get(f"{url}/metrics").text.splitlines() if line[:1] != "#")
    return int(float(lines["burnish_running"])), int(float(lines["burnish_waiting"]))


def questions_of(model: Any, plans: list[Any], tokens: int) -> list[Question]:
    """One question for each plan, with an answer that fills the length asked for: both sides write the same number of tokens."""
    from burnish import load_general

    texts = iter(load_general("en").held_out.texts)
    questions: list[Question] = []
    while len(questions) < len(plans):
        text, plan = next(texts), plans[len(questions)]
        answer = generated(model, text, plan, tokens)
        if len(answer) == tokens:
            expected = str(model.tokenizer.decode(answer, skip_special_tokens=True))
            questions.append(Question(text, f"base+plan-{len(questions)}", plan, expected))
    return questions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--requests", type=int, default=500)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    model, direction = measure.creative_direction()
    plans = [direction.enhancement(0.1 * (i + 1)) for i in range(CLIENTS + 1)]
    *questions, late = questions_of(model, plans, options.tokens)
    with tempfile.TemporaryDirectory() as folder:
        files = [plan.save(Path(folder) / f"plan-{i}.safetensors") for i, plan in enumerate(plans)]
        with served(files, options.threads) as (url, process):
            times, same = measured(model, url, questions, late, options)
            before = process.memory_info().rss
            started = time.perf_counter()
            outcomes, firsts = crowd(url, questions, options.requests)
            lasted = time.perf_counter() - started
            left = left_behind(url)
            grown = process.memory_info().rss - before
    rows = [measure.Measurement(name, values, (before + max(0, grown)) / 2**20) for name, values in times.items()]
    one, single, many, batch, idle, busy = (statistics.median(values) for values in times.values())
    ordered = sorted(firsts)
    table = (
        f"SmolLM2-135M-Instruct, float32, {options.threads} threads, {options.tokens} tokens written, median of {options.runs} "
        f"runs in turn, through HTTP. {same} of {CLIENTS} answers are the same on both sides.\n\n"
        "| | measured against | s | s of the other | ratio |\n|---|---|---|---|---|\n"
        f"| one enhanced request | the library's `generate`, plain model | {single:.2f} | {one:.2f} "
        f"| {one / single:.2f} of its speed |\n"
        f"| {CLIENTS} clients, {CLIENTS} enhancements | {CLIENTS} `generate` in a row | {batch:.2f} | {many:.2f} "
        f"| {many / batch:.2f} times the throughput |\n"
        f"| first token while {CLIENTS} run | first token when idle | {busy:.2f} | {idle:.2f} "
        f"| {busy / idle:.2f} times the wait |\n\n"
        f"{options.requests} mixed requests of {SHORT} tokens from {CROWD} clients took {lasted:.0f} s "
        f"({options.requests / lasted:.1f} a second; first token after {ordered[len(ordered) // 2]:.2f} s in the median, "
        f"{ordered[int(0.95 * len(ordered))]:.2f} s at the 95th percentile): "
        + ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
        + f". Afterwards {left[0]} ran and {left[1]} waited, and the server's memory had grown by {grown / 2**20:.0f} MiB."
    )
    facts = {
        "runs": options.runs,
        "threads": options.threads,
        "clients": CLIENTS,
        "tokens": options.tokens,
        "same_answers": same,
        "requests": options.requests,
        "seconds": lasted,
        "outcomes": dict(outcomes),
        "left": left,
        "memory_grown_mib": grown / 2**20,
    }
    command = (
        f"python benchmarks/serving.py --runs {options.runs} --threads {options.threads} --tokens {options.tokens} "
        f"--requests {options.requests}"
    )
    measure.write("serving", command, rows, facts, table)


def measured(
    model: Any, url: str, questions: list[Question], late: Question, options: argparse.Namespace
) -> tuple[dict[str, list[float]], int]:
    """(seconds of each side, answers that are the same on both)."""
    tokens = options.tokens
    texts = together(url, questions, tokens)  # both sides are warm after this
    same = sum(text == q.expected for text, q in zip(texts, questions, strict=True))
    times: dict[str, list[float]] = {}
    for number in range(options.runs):
        idle, busy = first_tokens(url, questions, late, tokens)
        seconds_now = {
            "one request, generate, plain": seconds(lambda: generated(model, questions[0].text, None, tokens)),
            "one request, served, enhanced": seconds(lambda: streamed(url, asked(questions[0], tokens))),
            f"{CLIENTS} requests, generate in a row": seconds(
                lambda: [generated(model, q.text, q.enhancement, tokens) for q in questions]
            ),
            f"{CLIENTS} clients, served": seconds(lambda: together(url, questions, tokens)),
            "first token, idle": idle,
            f"first token, while {CLIENTS} run": busy,
        }
        for name, value in seconds_now.items():
            times.setdefault(name, []).append(value)
        print(f"  run {number + 1}: " + ", ".join(f"{n} {v:.2f} s" for n, v in seconds_now.items()), file=sys.stderr)
    return times, same


if __name__ == "__main__":
    main()
