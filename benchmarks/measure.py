"""Runs a step in a process of its own, several times, and reports its median time and peak memory."""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Measurement:
    """Several runs of one step."""

    name: str
    seconds: list[float]
    peak_mb: float  # largest resident memory of any run

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def timed_process(command: Sequence[str], environment: dict[str, str] | None = None) -> tuple[float, float, str]:
    """(seconds, peak resident MB, stdout) of a command; raises CalledProcessError when it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - started, usage.ru_maxrss / 1024, output


def repeat(
    steps: dict[str, Sequence[str]], runs: int, before: Callable[[], None], environment: dict[str, str] | None = None
) -> list[Measurement]:
    """Runs every step `runs` times in turn, so that a noisy minute touches them all; `before` resets the disk."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    peaks: dict[str, float] = dict.fromkeys(steps, 0.0)
    for number in range(runs):
        for name, command in steps.items():
            before()
            taken, peak, _ = timed_process(command, environment)
            seconds[name].append(taken)
            peaks[name] = max(peaks[name], peak)
            print(f"  run {number + 1}: {name} {taken:.2f} s, {peak:.0f} MB", file=sys.stderr)
    return [Measurement(name, seconds[name], peaks[name]) for name in steps]


def write(name: str, command: str, rows: list[Measurement], facts: dict[str, object], table: str) -> None:
    """Prints the table and stores it with the numbers and the machine."""
    RESULTS.mkdir(exist_ok=True)
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "memory_limit_mb": resource.getrlimit(resource.RLIMIT_AS)[0],
    }
    stored = {
        "command": command,
        "machine": machine,
        "facts": facts,
        "rows": [asdict(r) | {"median": r.median} for r in rows],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(f"Made by `{command}`.\n\n{table}\n", encoding="utf-8")
    print(table)


def creative_direction() -> tuple[Any, Any]:
    """(SmolLM2-135M in float32, its creative-writing direction, one a layer)."""
    from burnish import FindOptions, ModelOptions, find_direction, load, load_domain, load_general

    model = load("smollm2-135m", ModelOptions(dtype="float32"))
    return model, find_direction(
        model,
        enhance=load_domain("creative-writing").enhance,
        normal=load_general("en").prompts,
        options=FindOptions(scope="per-layer"),
    )
