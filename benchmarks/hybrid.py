"""Direction, LoRA, both, or just a system prompt? One table and a data-size curve: SmolLM2, invented facts, two specialities.

python benchmarks/hybrid.py [--model smollm2-135m] [--domains creative-writing technical-documentation] [--steps 60] [--small]

Every training sees the same rows in the same order: three in four seen are invented facts, the others good answers of the speciality
(the packaged references, then the model's own under an expert system prompt). Every row of the table is measured on the same
prompts, none of them trained or tuned on, and written as soon as it is there: an interrupted run goes on.
"""

import argparse
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hybrid_methods import Bench, Sizes, Variant, directed, methods, trained

from burnish import ModelOptions, load
from burnish.evaluation.damage import perplexity, prose_items
from burnish.evaluation.effect import affinity, pair_changes
from burnish.evaluation.material import Answered, base_answers, halves
from burnish.evaluation.recall import recall
from burnish.hybrid.barrier import everyday_answers
from burnish.maths.intervals import Interval, interval
from burnish.model.scoring import Item, Scores, score, score_prompts

RESULTS = Path(__file__).with_name("results")
CURVE = (0, 16, 64, 256)


def measured(bench: Bench, variant: Variant) -> dict[str, Any]:
    """Everything in a row of the table but what it took."""
    model, sizes = bench.model, bench.sizes

    def scored(rows: list[Answered]) -> Scores:
        items = [Item(model.tokens(r.prompt), r.answer) for r in rows]
        if variant.candidate is not None:
            return score(model, items, [variant.candidate])
        others = [Item(model.tokens(variant.asked(r.prompt), variant.system), r.answer) for r in rows]
        return score_prompts(model, items, others, variant.changed)

    found: dict[str, Any] = {}
    for kind, both in bench.pairs.items():
        pairs = both.report[: sizes.pairs]
        rows = [Answered(p.prompt, p.chosen) for p in pairs] + [Answered(p.prompt, p.rejected) for p in pairs]
        scores = scored(rows)
        chosen, rejected = pair_changes(scores.base, scores.candidates[0])
        found[kind] = {"shift": asdict(interval(chosen - rejected)), "likelihood": asdict(interval(chosen))}
    for kind, rows in bench.everyday.items():
        scores = scored(rows).candidates[0]
        found[f"kl_{kind}"] = asdict(interval(torch.stack([s.kl.mean() for s in scores])))
    prose = prose_items(model, bench.domain.language, max(2, sizes.prompts // 2))
    if variant.candidate is not None:
        scores = score(model, prose, [variant.candidate])
    else:  # prose stands alone: a prompt changes nothing about it
        scores = score_prompts(model, prose, prose, variant.changed)
    found["perplexity"] = [perplexity(scores.base), perplexity(scores.candidates[0])]
    found["affinity"] = affine(bench, variant)
    found["recall"] = asdict(
        recall(
            model,
            bench.facts,
            questions=sizes.questions,
            system=variant.system,
            asked=variant.asked,
            changed=variant.changed,
            tokens=min(16, sizes.tokens),
        )
    )
    return found


def affine(bench: Bench, variant: Variant) -> dict[str, Any]:
    """How much more than the base model's the answers to held-out prompts read like the speciality's."""
    model, tokens = bench.model, bench.sizes.tokens
    prompts = halves(bench.domain.held_out)[1].spread(max(4, bench.sizes.prompts // 2))
    base = base_answers(model, prompts, tokens)
    asked = [model.tokens(variant.asked(p), variant.system) for p in prompts.prompts]
    with variant.changed():
        answers = model.continuations(asked, tokens)
    found = affinity(model, bench.probe, [model.tokens(p) for p in prompts.prompts], base, answers)
    return {"accuracy": found.accuracy, "change": asdict(found.change)}


@contextlib.contextmanager
def watched(taken: dict[str, float]) -> Iterator[None]:
    """Seconds, and the largest resident memory in GiB seen meanwhile."""
    import psutil

    process, peak, done = psutil.Process(), [0], threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=look)
    started = time.perf_counter()
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        taken |= {"seconds": time.perf_counter() - started, "memory": max(peak[0], process.memory_info().rss) / 2**30}


def one(bench: Bench, make: Callable[[], Variant]) -> dict[str, Any]:
    """A row: made, timed, measured."""
    taken: dict[str, float] = {}
    with watched(taken):
        variant = make()
    if variant.shared is not None:
        taken["seconds"] += bench.seconds[variant.shared]
    row = {**taken, "bytes": variant.bytes, "tokens": variant.tokens, **variant.notes}
    return {**row, **measured(bench, variant)}


def prepare_shared(bench: Bench, wanted: list[str]) -> None:
    """What several rows share is made before any of them is timed: pairs, answers, probe, and where needed the directions."""
    _ = bench.pairs, bench.everyday, bench.probe
    everyday_answers(bench.model, bench.options)
    if any(word in name for name in wanted for word in ("tuned", "start", "keep", "protect", "prevent")):
        _ = bench.tuned
    if any(word in name for name in wanted for word in ("heal", "steering", "published")):
        _ = bench.published


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--domains", nargs="*", default=["creative-writing", "technical-documentation"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--small", action="store_true", help="a run of minutes that shows only that all of it works")
    arguments = parser.parse_args()
    sizes = Sizes(arguments.steps, 4, arguments.rows, arguments.learning_rate, 12, 12, 24, 4, 8)
    command = (
        f"python benchmarks/hybrid.py --steps {sizes.steps} --learning-rate {sizes.learning_rate:g} --rows {sizes.rows}"
    )
    domains, curve, name = arguments.domains, CURVE, "hybrid"
    if arguments.small:
        sizes = Sizes(2, 2, 8, arguments.learning_rate, 2, 2, 4, 1, 0, 1)
        domains, curve, name = domains[:1], (0, 8), "hybrid-small"
        command = "python benchmarks/hybrid.py --small"
    known = stored(name, command)
    model = load(arguments.model, ModelOptions(dtype="float32"))
    benches = [Bench(model, domain, sizes) for domain in domains]
    for bench in benches:
        run_rows(bench, methods(bench), known["rows"].setdefault(bench.name, {}), lambda: write(name, command, known))
    for label, method in (("LoRA, {}", "LoRA"), ("keep, {}", "keep")):  # measured already, with as many rows
        if sizes.rows in curve:
            known["curve"][label.format(sizes.rows)] = known["rows"][domains[0]][method]
    run_rows(benches[0], curve_methods(benches[0], curve), known["curve"], lambda: write(name, command, known))
    print((RESULTS / f"{name}.md").read_text(encoding="utf-8"))


def curve_methods(bench: Bench, sizes: tuple[int, ...]) -> dict[str, Callable[[], Variant]]:
    """LoRA and keep at every number of rows; without rows they are the base model and the direction alone."""
    listed: dict[str, Callable[[], Variant]] = {}
    for rows in sizes:
        if rows == 0:
            listed |= {"LoRA, 0": Variant, "keep, 0": lambda: directed(bench, "tuned")}
            continue
        listed[f"LoRA, {rows}"] = partial(trained, bench, rows, "plain")
        listed[f"keep, {rows}"] = lambda rows=rows: trained(bench, rows, "keep", "tuned")
    return listed


def run_rows(
    bench: Bench, listed: dict[str, Callable[[], Variant]], known: dict[str, Any], keep: Callable[[], None]
) -> None:
    """Makes the rows that are not known yet, and keeps each as soon as it is there."""
    wanted = [name for name in listed if name not in known]
    if wanted:
        prepare_shared(bench, wanted)
    for name in wanted:
        started = time.perf_counter()
        known[name] = one(bench, listed[name])
        keep()
        print(f"{bench.name}, {name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


def stored(name: str, command: str) -> dict[str, Any]:
    """What an earlier run with the same settings has measured."""
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found if found.get("command") == command else {"command": command, "rows": {}, "curve": {}}


HEAD = (
    "| method | shift, references | likelihood | shift, made | likelihood | affinity | facts chosen (chance 25 %) | facts said | KL general | "
    "KL protect | perplexity of prose | bytes | seconds | memory, GiB | tokens seen |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def write(name: str, command: str, known: dict[str, Any]) -> None:
    """After every row, so that an interrupted run leaves what it measured."""
    RESULTS.mkdir(exist_ok=True)
    intro = (
        f"Made by `{command}`. Shifts and likelihoods in nats per token above the base model, KL in nats per token from it, 95 % intervals over "
        "prompts or facts; everything on prompts that were neither trained nor tuned on. Seconds are those of making it on "
        f"{torch.get_num_threads()} core(s), finding the direction included; memory is the process's meanwhile, which keeps what earlier rows "
        "took, so that it is to be read in the first table."
    )
    pages = [intro]
    for domain, rows in known["rows"].items():
        pages.append(f"## {domain}\n\n" + "\n".join([HEAD, *(table_row(method, row) for method, row in rows.items())]))
    if known["curve"]:
        lines = [
            "| rows | method | facts chosen | facts said | shift, references | KL general | tokens seen |",
            "|---|---|---|---|---|---|---|",
        ]
        for label, row in sorted(known["curve"].items(), key=lambda entry: int(entry[0].split(", ")[1])):
            method, _, rows = label.partition(", ")
            lines.append(
                f"| {rows} | {method} | {share(row['recall']['chosen'])} | {share(row['recall']['said'])} | "
                f"{Interval(**row['references']['shift']).short} | {row['kl_general']['mean']:.4f} | {row['tokens']:,} |"
            )
        pages.append("## How many rows\n\nThe same number of steps for every size.\n\n" + "\n".join(lines))
    (RESULTS / f"{name}.md").write_text("\n\n".join(pages) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.json").write_text(json.dumps({**known, "command": command}, indent=1) + "\n", encoding="utf-8")


def share(found: dict[str, float]) -> str:
    return f"{found['mean']:.0%} [{found['low']:.0%}, {found['high']:.0%}]"


def table_row(method: str, row: dict[str, Any]) -> str:
    effects = [
        Interval(**row[kind][figure]).short for kind in ("references", "made") for figure in ("shift", "likelihood")
    ]
    before, after = row["perplexity"]
    cells = [
        method,
        *effects,
        Interval(**row["affinity"]["change"]).short,
        share(row["recall"]["chosen"]),
        share(row["recall"]["said"]),
        f"{row['kl_general']['mean']:.4f}",
        f"{row['kl_protect']['mean']:.4f}",
        f"{before:.1f} -> {after:.1f}",
        f"{row['bytes']:,}",
        f"{row['seconds']:.0f}",
        f"{row['memory']:.1f}",
        f"{row['tokens']:,}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
