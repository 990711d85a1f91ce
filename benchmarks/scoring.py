"""Evaluating 16 factors in one pass against 16 separate plain evaluations: SmolLM2-135M, float32, CPU.

python benchmarks/scoring.py [--runs 5]

A plain evaluation is what a script does: base and enhanced forward passes over the padded prompts and answers, full logits,
KL at the answers' tokens. Both compute the same KL values; their largest differences are printed (at the strongest factor single
tokens move by 2 nats, where the plain formula's own float32 rounding is 2e-5).
"""

import argparse
import statistics
import sys
import time
from typing import Any

import measure
import torch

FACTORS = 16
PROMPTS = 16
TOKENS = 32
WINDOWS = ("all", "50%..")


@torch.inference_mode()
def log_probabilities(model: Any, items: list[Any]) -> list[torch.Tensor]:
    """[answer tokens, vocabulary] of each item from one padded batch."""
    width = max(len(i.prompt) + len(i.answer) for i in items)
    ids = torch.zeros(len(items), width, dtype=torch.long)
    for row, item in enumerate(items):
        ids[row, : len(item.prompt) + len(item.answer)] = torch.tensor(item.prompt + item.answer)
    logits = model.network(input_ids=ids.to(model.device), use_cache=False).logits
    return [
        logits[row, len(i.prompt) - 1 : len(i.prompt) - 1 + len(i.answer)].log_softmax(-1)
        for row, i in enumerate(items)
    ]


def plain(model: Any, items: list[Any], enhancement: Any) -> torch.Tensor:
    base = log_probabilities(model, items)
    with model.enhanced(enhancement):
        other = log_probabilities(model, items)
    return torch.cat([(p.exp() * (p - q)).sum(-1, dtype=torch.float64) for p, q in zip(base, other, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    from burnish import load_general
    from burnish.model.scoring import Candidate, Item, score

    torch.set_num_threads(2)
    model, direction = measure.creative_direction()
    prompts = [model.tokens(p) for p in load_general("en").held_out.spread(PROMPTS).prompts]
    items = [Item(p, a) for p, a in zip(prompts, model.continuations(prompts, TOKENS), strict=True)]
    rows, lines = (
        [],
        [
            "| window | 16 in one pass, s | 16 plain evaluations, s | times faster | largest difference: a token's KL | a candidate's KL |",
            "|---|---|---|---|---|---|",
        ],
    )
    for window in WINDOWS:
        plans = [direction.enhancement(0.1 * (i + 1), layers=window) for i in range(FACTORS)]
        seconds: dict[str, list[float]] = {"one pass": [], "plain": []}
        for number in range(runs):
            started = time.perf_counter()
            scores = score(model, items, [Candidate(str(i), plan) for i, plan in enumerate(plans)])
            seconds["one pass"].append(time.perf_counter() - started)
            started = time.perf_counter()
            separate = [plain(model, items, plan) for plan in plans]
            seconds["plain"].append(time.perf_counter() - started)
            print(
                f"  run {number + 1}, {window}: {seconds['one pass'][-1]:.1f} s, {seconds['plain'][-1]:.1f} s",
                file=sys.stderr,
            )
        ours = [torch.cat([s.kl for s in row]) for row in scores.candidates]
        pairs = list(zip(ours, separate, strict=True))
        token_off = max(float((a - b.clamp_min(0)).abs().max()) for a, b in pairs)
        mean_off = max(float((a.mean() - b.mean()).abs()) for a, b in pairs)
        one, many = (statistics.median(seconds[k]) for k in ("one pass", "plain"))
        lines.append(f"| {window} | {one:.1f} | {many:.1f} | {many / one:.2f} | {token_off:.1e} | {mean_off:.1e} |")
        rows += [measure.Measurement(f"{name}, {window}", times, 0.0) for name, times in seconds.items()]
    table = (
        f"SmolLM2-135M-Instruct, float32, 2 threads, {PROMPTS} prompts, {TOKENS} answer tokens, {FACTORS} factors, median of {runs} runs in turn.\n\n"
        + "\n".join(lines)
    )
    measure.write("scoring", "python benchmarks/scoring.py", rows, {"runs": runs, "factors": FACTORS}, table)


if __name__ == "__main__":
    main()
