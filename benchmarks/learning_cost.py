"""What the whole of `burnish enhance` costs, as multiples of reading the speciality's prompts and of the weights.

python benchmarks/learning_cost.py [MODEL] [--domain NAME] [--runs N]

Reading and enhancing take turns, each in a process of its own, in float32; the command starts with an empty cache and ends with its page.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import measure

READING = """
import sys, time
from burnish import FindOptions, ModelOptions, find_direction, load, load_domain, load_general
model = load(sys.argv[1], ModelOptions(dtype="float32"))
domain = load_domain(sys.argv[2])
sets = dict(enhance=domain.enhance, normal=load_general(domain.language).prompts)
started = time.perf_counter()
find_direction(model, **sets, options=FindOptions(force=True))
print(time.perf_counter() - started)
"""
TIMES, WEIGHTS, EXTRA_MB = 30, 2.5, 1000  # the bounds: of the reading; of the weights' size, and that much more


def main() -> None:
    from burnish.model.model import load

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--domain", default="creative-writing")
    parser.add_argument("--runs", type=int, default=1)
    given = parser.parse_args()
    model = load(given.model)
    folder = str(model.folder)
    weights = sum(p.numel() for p in model.network.parameters()) * 4 / 2**20
    del model
    reading: list[float] = []
    enhancing: list[float] = []
    peak = 0.0
    for _ in range(given.runs):
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "BURNISH_CACHE": cache}
            _, _, output = measure.timed_process([sys.executable, "-c", READING, folder, given.domain], environment)
            reading.append(float(output))
            command = ["-m", "burnish", "enhance", folder, "--domain", given.domain, "--dtype", "float32"]
            seconds, memory, _ = measure.timed_process(
                [sys.executable, *command, "-o", str(Path(cache) / "out")], environment
            )
            enhancing.append(seconds)
            peak = max(peak, memory)
    ratio = statistics.median(e / r for e, r in zip(enhancing, reading, strict=True))
    bound = WEIGHTS * weights + EXTRA_MB
    table = "\n".join(
        [
            "| what | measured | bound |",
            "|---|---|---|",
            f"| reading 95 + 95 prompts | {statistics.median(reading):.1f} s | |",
            f"| `burnish enhance`, start to page | {statistics.median(enhancing):.0f} s, {ratio:.1f} times the reading | {TIMES} times |",
            f"| peak memory | {peak:.0f} MB | {bound:.0f} MB ({WEIGHTS} times the weights' {weights:.0f} MB, and {EXTRA_MB} MB) |",
        ]
    )
    rows = [
        measure.Measurement("reading", reading, 0.0),
        measure.Measurement("enhance", enhancing, peak),
    ]
    facts = {"model": given.model, "domain": given.domain, "ratio": ratio, "weights_mb": weights}
    measure.write("learning-cost", "python benchmarks/learning_cost.py", rows, facts, table)


if __name__ == "__main__":
    main()
