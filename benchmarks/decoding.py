"""Decoding with an enhancement of its own for each row: SmolLM2-135M, float32, CPU.

python benchmarks/decoding.py [--runs 5] [--threads 2]

Three questions, each answered by a ratio whose two sides are measured in turn, in one process:
1. how fast one enhanced request decodes, against the library's `generate` of the plain model;
2. how much more 8 requests with 8 enhancements write together, against 8 `generate` calls in a row under live hooks;
3. how long the first token of a request takes that arrives while 8 others run, against an idle decoder.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import measure
import torch

ROWS = 8
TOKENS = 64
PAUSE = 5  # steps of the 8 that run before another request arrives


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def generated(model: Any, prompt: list[int], enhancement: Any | None = None) -> list[int]:
    """What a script does: the library's `generate`, under live hooks where there is an enhancement."""
    if enhancement is None:
        return model.continuations([prompt], TOKENS)[0]
    with model.enhanced(enhancement):
        return model.continuations([prompt], TOKENS)[0]


def decoded(decoder: Any, requests: list[Any]) -> list[list[int]]:
    """The answers of a decoder that is kept, as a server keeps it."""
    answers: dict[int, list[int]] = {decoder.submit(request): [] for request in requests}
    while not decoder.idle:
        for token in decoder.step():
            answers[token.request].append(token.token)
    return list(answers.values())


def first_token(decoder: Any, request: Any) -> float:
    """Seconds from the submission of a request to its first token."""
    started = time.perf_counter()
    number = decoder.submit(request)
    while all(token.request != number for token in decoder.step()):
        pass
    return time.perf_counter() - started


def latencies(model: Any, requests: list[Any], late: Any) -> tuple[float, float]:
    """(idle, while all `requests` run) seconds to the first token of `late`."""
    from burnish.model.decoding import Decoder

    with Decoder(model, rows=ROWS + 1) as decoder:
        idle = first_token(decoder, late)
    with Decoder(model, rows=ROWS + 1) as decoder:
        for request in requests:
            decoder.submit(request)
        while decoder.waiting:
            decoder.step()
        for _ in range(PAUSE):
            decoder.step()
        return idle, first_token(decoder, late)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    from burnish import FindOptions, ModelOptions, find_direction, load, load_domain, load_general
    from burnish.model.decoding import Candidate, Decoder, DecodeRequest

    torch.set_num_threads(options.threads)
    model = load("smollm2-135m", ModelOptions(dtype="float32"))
    model.stop_tokens = frozenset()  # every answer has the same length
    direction = find_direction(
        model,
        enhance=load_domain("creative-writing").enhance,
        normal=load_general("en").prompts,
        options=FindOptions(scope="per-layer"),
    )
    plans = [direction.enhancement(0.1 * (i + 1)) for i in range(ROWS)]
    prompts = [model.tokens(p) for p in load_general("en").held_out.spread(ROWS + 1).prompts]
    requests = [
        DecodeRequest(p, Candidate(str(i), e), TOKENS) for i, (p, e) in enumerate(zip(prompts, plans, strict=False))
    ]
    late = DecodeRequest(prompts[-1], Candidate("late", plans[0]), TOKENS)
    decoder = Decoder(model, rows=ROWS)
    answers = decoded(decoder, requests)  # both sides are warm after this
    same = [generated(model, p, e) == a for p, e, a in zip(prompts, plans, answers, strict=False)]

    times: dict[str, list[float]] = {}
    for number in range(options.runs):
        idle, busy = latencies(model, requests, late)
        found = {
            "one request, generate": seconds(lambda: generated(model, prompts[0])),
            "one request, decoder, enhanced": seconds(lambda: decoded(decoder, requests[:1])),
            f"{ROWS} requests, generate in a row": seconds(
                lambda: [generated(model, p, e) for p, e in zip(prompts, plans, strict=False)]
            ),
            f"{ROWS} requests, decoder, together": seconds(lambda: decoded(decoder, requests)),
            "first token, idle": idle,
            f"first token, while {ROWS} run": busy,
        }
        for name, value in found.items():
            times.setdefault(name, []).append(value)
        print(f"  run {number + 1}: " + ", ".join(f"{n} {v:.2f} s" for n, v in found.items()), file=sys.stderr)
    rows = [measure.Measurement(name, values, 0.0) for name, values in times.items()]
    one, single, many, together, idle, busy = (statistics.median(values) for values in times.values())
    table = (
        f"SmolLM2-135M-Instruct, float32, {options.threads} threads, prompts of {min(map(len, prompts))} to "
        f"{max(map(len, prompts))} tokens, {TOKENS} tokens written, median of {options.runs} runs in turn. "
        f"{sum(same)} of {ROWS} answers are the same token by token on both sides.\n\n"
        "| | measured against | s | s of the other | ratio |\n|---|---|---|---|---|\n"
        f"| one enhanced request | the library's `generate`, plain model | {single:.2f} | {one:.2f} "
        f"| {one / single:.2f} of its speed |\n"
        f"| {ROWS} requests, {ROWS} enhancements, together | {ROWS} `generate` in a row | {together:.2f} | {many:.2f} "
        f"| {many / together:.2f} times the throughput |\n"
        f"| first token while {ROWS} run | first token when idle | {busy:.2f} | {idle:.2f} "
        f"| {busy / idle:.2f} times the wait |"
    )
    facts = {
        "runs": options.runs,
        "threads": options.threads,
        "rows": ROWS,
        "tokens": TOKENS,
        "same_answers": sum(same),
    }
    command = f"python benchmarks/decoding.py --runs {options.runs} --threads {options.threads}"
    measure.write("decoding", command, rows, facts, table)


if __name__ == "__main__":
    main()
