"""Direction, LoRA, both, or just a system prompt? One table and a data-size curve: SmolLM2, invented facts, two specialities.

python benchmarks/hybrid.py [--model smollm2-135m] [--domains creative-writing technical-documentation] [--steps 60] [--small]

Every training sees the same rows in the same order: three in four seen are invented facts, the others good answers of the speciality
(the packaged references, then the model's own under an expert system prompt). Every row of the table is measured on the same
prompts, none of them trained on, and written as soon as it is there: an interrupted run goes on. The settings were chosen
with other facts and other everyday prompts.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import torch
from facts import recall
from hybrid_methods import METHODS, Bench, Sizes, Variant, trained

from burnish import ModelOptions, load
from burnish.evaluation.damage import perplexity, prose_items
from burnish.evaluation.effect import affinity, pair_changes
from burnish.evaluation.pairs import Answered, answered_items, base_answers, halves
from burnish.hybrid.barrier import everyday_answers
from burnish.maths.intervals import Interval, interval
from burnish.model.scoring import Scores, score, score_prompts

RESULTS = Path(__file__).with_name("results")
found_rows: "Queue[Any]"  # (table, label, row); set in each process
CURVE = (16, 64)  # rows; beside none, the base model or the direction alone, and all of them


def measured(bench: Bench, variant: Variant) -> dict[str, Any]:
    """Everything in a row of the table but what it took."""
    model, sizes = bench.model, bench.sizes

    def compared(rows: list[Answered]) -> Scores:
        items = answered_items(model, rows)
        if variant.candidate is not None:
            return score(model, items, [variant.candidate])
        return score_prompts(model, items, variant.items(model, rows), variant.changed)

    measures: dict[str, Any] = {}
    for kind, rows in bench.pair_rows.items():
        with variant.changed():
            scores = score(model, variant.items(model, rows), []).base
        chosen, rejected = pair_changes(bench.base_scores[kind], scores)
        measures[kind] = {"shift": asdict(interval(chosen - rejected)), "likelihood": asdict(interval(chosen))}
    moved = {k: torch.stack([s.kl.mean() for s in compared(rows).candidates[0]]) for k, rows in bench.everyday.items()}
    for kind, values in {**moved, "everyday": torch.cat(list(moved.values()))}.items():
        measures[f"kl_{kind}"] = asdict(interval(values))
    prose = prose_items(model, bench.domain.language, max(2, sizes.prompts // 2))
    if variant.candidate is not None:
        scores = score(model, prose, [variant.candidate])
    else:  # prose stands alone: a prompt changes nothing about it
        scores = score_prompts(model, prose, prose, variant.changed)
    measures["perplexity"] = [perplexity(scores.base), perplexity(scores.candidates[0])]
    measures["affinity"] = affine(bench, variant)
    measures["recall"] = asdict(
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
    return measures


def affine(bench: Bench, variant: Variant) -> dict[str, Any]:
    """How much more than the base model's the answers to held-out prompts read like the speciality's."""
    model, tokens = bench.model, bench.sizes.tokens
    prompts = halves(bench.domain.held_out)[1].spread(max(4, bench.sizes.prompts // 2))
    base = base_answers(model, prompts, tokens)
    asked = [model.tokens(variant.asked(p), variant.system) for p in prompts.prompts]
    with variant.changed():
        answers = model.continuations(asked, tokens)
    change = affinity(model, bench.probe, [model.tokens(p) for p in prompts.prompts], base, answers)
    return {"accuracy": change.accuracy, "change": asdict(change.change)}


@contextlib.contextmanager
def watched(taken: dict[str, float]) -> Iterator[None]:
    """Seconds, and the largest resident memory in GiB seen meanwhile."""
    import psutil

    give_back_memory()
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


def give_back_memory() -> None:
    """What earlier rows took and no longer need goes back to the system (where that is glibc's), so that it is not counted again."""
    gc.collect()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def one(bench: Bench, make: Callable[[Bench], Variant]) -> dict[str, Any]:
    """A row: made, timed, measured."""
    taken: dict[str, float] = {}
    with watched(taken):
        variant = make(bench)
    if variant.shared is not None:
        taken["seconds"] += bench.seconds[variant.shared]
    row = {**taken, "bytes": variant.bytes, "tokens": variant.tokens, **variant.notes}
    return {**row, **measured(bench, variant)}


def prepare_shared(bench: Bench, wanted: list[str]) -> None:
    """What several rows share is made before any of them is timed: pairs, answers, probe, and where needed the directions."""
    _ = bench.base_scores, bench.everyday, bench.probe, bench.data(bench.sizes.rows)
    everyday_answers(bench.model, bench.options)
    if any(word in name for name in wanted for word in ("learnt", "keep", "protect")):
        _ = bench.learnt
    if any(word in name for name in wanted for word in ("steering", "published")):
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
    sizes = Sizes(arguments.steps, 4, arguments.rows, arguments.learning_rate, 12, 16, 24, 4, 16)
    command = (
        f"python benchmarks/hybrid.py --steps {sizes.steps} --learning-rate {sizes.learning_rate:g} --rows {sizes.rows}"
    )
    domains, curve, name = arguments.domains, CURVE, "hybrid"
    if arguments.small:
        sizes = Sizes(2, 2, 8, arguments.learning_rate, 2, 2, 4, 1, 0, 1)
        domains, curve, name = domains[:1], (4,), "hybrid-small"
        command = "python benchmarks/hybrid.py --small"
    known = stored(name, command)
    for table, label, row in made(arguments.model, domains, curve, sizes, known):
        known["tables"].setdefault(table, {})[label] = row
        write(name, command, known)
    print((RESULTS / f"{name}.md").read_text(encoding="utf-8"))


def made(
    model: str, domains: list[str], curve: tuple[int, ...], sizes: Sizes, known: dict[str, Any]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(table, label, row) of the rows that are not known yet, as they come: a process for each speciality, on its share of the cores."""
    threads = max(1, (os.cpu_count() or 1) // len(domains))
    os.environ |= {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}  # of the processes started here
    known["threads"] = threads
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    with ProcessPoolExecutor(len(domains), spawn, begin, (queue,)) as pool:
        running = [
            pool.submit(speciality, model, domain, curve if domain == domains[0] else (), sizes, known)
            for domain in domains
        ]
        waiting = True
        while waiting:  # once more after the last has ended, and the rows of the others are kept when one fails
            done = all(future.done() for future in running)
            try:
                yield queue.get(timeout=1)
            except Empty:
                waiting = not done
        for future in running:
            future.result()


def begin(queue: "Queue[Any]") -> None:
    """In each process: where its rows go, and that it ends with the command, however that ends."""
    global found_rows
    found_rows = queue
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def speciality(name: str, domain: str, curve: tuple[int, ...], sizes: Sizes, known: dict[str, Any]) -> None:
    """Makes the rows of one speciality and hands each on as soon as it is there."""
    bench = Bench(load(name, ModelOptions(dtype="float32")), domain, sizes)
    tables = {table: dict(known["tables"].get(table, {})) for table in (domain, "curve")}
    listed = {(domain, method): make for method, make in METHODS.items()}
    listed |= {("curve", label): make for label, make in curve_methods(curve).items()}
    wanted = {key: make for key, make in listed.items() if key[1] not in tables[key[0]]}
    if wanted:
        prepare_shared(bench, [label for _, label in wanted])
    for (table, label), make in wanted.items():
        started = time.perf_counter()
        tables[table][label] = one(bench, make)
        found_rows.put((table, label, tables[table][label]))
        print(f"{domain}, {label}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    if curve:  # measured already: no rows, and all of them
        for label, method in (
            ("LoRA, 0", "base"),
            ("keep, 0", "directions, learnt"),
            (f"LoRA, {sizes.rows}", "LoRA"),
            (f"keep, {sizes.rows}", "keep"),
        ):
            found_rows.put(("curve", label, tables[domain][method]))


def curve_methods(sizes: tuple[int, ...]) -> dict[str, Callable[[Bench], Variant]]:
    """LoRA and keep at every number of rows."""
    listed: dict[str, Callable[[Bench], Variant]] = {}
    for rows in sizes:
        listed[f"LoRA, {rows}"] = partial(trained, combine="plain", rows=rows)
        listed[f"keep, {rows}"] = partial(trained, combine="keep", shared="learnt", rows=rows)
    return listed


def stored(name: str, command: str) -> dict[str, Any]:
    """What an earlier run with the same settings has measured."""
    path = RESULTS / f"{name}.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return results if results.get("command") == command else {"command": command, "tables": {}}


HEAD = (
    "| method | shift, references | likelihood | shift, made | likelihood | affinity | facts chosen (chance 25 %) | facts said | KL everyday | "
    "of it general | protect | perplexity of prose | bytes | seconds | memory, GiB | tokens seen |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def write(name: str, command: str, known: dict[str, Any]) -> None:
    """After every row, so that an interrupted run leaves what it measured."""
    RESULTS.mkdir(exist_ok=True)
    intro = (
        f"Made by `{command}`. Shifts and likelihoods in nats per token above the base model, KL in nats per token from it, 95 % intervals over "
        "prompts or facts; everything on prompts that were not trained on. The settings were fixed beforehand, with other facts "
        f"and other everyday prompts. Seconds are those of making it on {known['threads']} core(s), finding the direction included; memory "
        "is the process's largest meanwhile, the model of 0.5 GiB included."
    )
    pages = [intro]
    curve = known["tables"].get("curve", {})
    for table, rows in sorted(known["tables"].items()):
        if table != "curve":
            lines = [HEAD, *(table_row(method, rows[method]) for method in METHODS if method in rows)]
            pages.append(f"## {table}\n\n" + "\n".join(lines))
    if curve:
        lines = [
            "| rows | method | facts chosen | facts said | shift, references | KL everyday | tokens seen |",
            "|---|---|---|---|---|---|---|",
        ]
        for label, row in sorted(curve.items(), key=lambda entry: int(entry[0].split(", ")[1])):
            method, _, rows = label.partition(", ")
            lines.append(
                f"| {rows} | {method} | {share(row['recall']['chosen'])} | {share(row['recall']['said'])} | "
                f"{Interval(**row['references']['shift']).short} | {nats(row['kl_everyday'])} | {row['tokens']:,} |"
            )
        pages.append("## How many rows\n\nThe same number of steps for every size.\n\n" + "\n".join(lines))
    (RESULTS / f"{name}.md").write_text("\n\n".join(pages) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.json").write_text(json.dumps({**known, "command": command}, indent=1) + "\n", encoding="utf-8")


def share(bounds: dict[str, float]) -> str:
    return f"{bounds['mean']:.0%} [{bounds['low']:.0%}, {bounds['high']:.0%}]"


def nats(bounds: dict[str, float]) -> str:
    return f"{bounds['mean']:.4f} [{bounds['low']:.4f}, {bounds['high']:.4f}]"


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
        nats(row["kl_everyday"]),
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
