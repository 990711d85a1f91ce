"""Finding a direction in SmolLM2-135M (float32, CPU, 95 + 95 prompts, all layers) against its peers.

python benchmarks/finding.py [--runs 5] [--peers FOLDER]

Peers are installed from PyPI into environments of their own below FOLDER (kept between calls). Every method gets the same
rendered prompts and the same loaded model; the time is that of finding alone, without loading. Extra memory is the peak
above what the process held when finding began.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import measure

MODEL = "smollm2-135m"
DOMAIN = "creative-writing"
PEERS = {"repeng": "repeng==0.4.0", "steering-vectors": "steering-vectors==0.12.2"}
SCRIPT = Path(__file__).with_name("finding_methods.py")
METHODS = {
    "burnish, the directions alone": ("burnish", sys.executable),
    "burnish find (held-out report and null too)": ("burnish-report", sys.executable),
    "transformers loop, output_hidden_states": ("plain", sys.executable),
}


def peer_python(folder: Path, name: str) -> str:
    """The Python of a peer's environment, made on the first call with the torch of this one."""
    import torch

    python = folder / name / "bin" / "python"
    if not (folder / name / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
        wanted = [f"torch=={torch.__version__.split('+')[0]}", PEERS[name]]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
        (folder / name / "installed").touch()
    return str(python)


def prepare(folder: Path) -> tuple[Path, Path]:
    """(model folder, file of rendered prompts) that every method reads."""
    from burnish.model.model import load
    from burnish.prompts.domains import load_domain, load_general

    model = load(MODEL)
    domain, general = load_domain(DOMAIN), load_general("en")
    sets = {"enhance": domain.enhance, "normal": general.prompts}
    held_out = {"enhance": domain.held_out.texts, "normal": general.held_out.texts}
    path = folder / "prompts.json"
    path.write_text(
        json.dumps(
            {
                "texts": {name: prompts.texts for name, prompts in sets.items()},
                "rendered": {name: [model.render(p) for p in prompts.prompts] for name, prompts in sets.items()},
                "held_out": held_out,
            }
        ),
        encoding="utf-8",
    )
    return model.folder, path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--peers", type=Path, default=Path(".venv-peers"), help="where the peers' environments are kept"
    )
    arguments = parser.parse_args()
    methods = dict(METHODS)
    for name in PEERS:
        methods[PEERS[name].replace("==", " ")] = (name, peer_python(arguments.peers.resolve(), name))
    with tempfile.TemporaryDirectory() as temporary:
        model, prompts = prepare(Path(temporary))
        limit = _run(sys.executable, "limit", model, prompts)
        measurements: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
        for number in range(arguments.runs):
            for name, (method, python) in methods.items():
                measurements[name].append(_run(python, method, model, prompts))
                print(f"  run {number + 1}: {name} {measurements[name][-1]}", file=sys.stderr)
    rows = [
        measure.Measurement(name, [r["seconds"] for r in runs], max(r["extra_mb"] for r in runs))
        for name, runs in measurements.items()
    ]
    ours = rows[0].median
    lines = ["| method | median seconds | times ours | extra memory, MB | cosine with ours |", "|---|---|---|---|---|"]
    for row in rows:
        cosine = statistics.median(r["cosine"] for r in measurements[row.name])
        lines.append(f"| {row.name} | {row.median:.2f} | {row.median / ours:.2f} | {row.peak_mb:.0f} | {cosine:.3f} |")
    table = (
        f"SmolLM2-135M-Instruct, float32, 2 threads, 95 + 95 prompts, all 30 layers, median of {arguments.runs} runs in turn.\n\n"
        + "\n".join(lines)
        + f"\n\nArithmetic limit: {limit['gflop']:.0f} GFLOP for the {limit['tokens']:.0f} distinct tokens through all layers, at the "
        f"{limit['gflops']:.0f} GFLOP/s that this machine reaches in these matrix products, take {limit['seconds']:.2f} s: "
        f"the directions alone take {ours / limit['seconds']:.2f} times that.\n\nThe cosine is the mean over all layers but the "
        "last of a method's direction with ours; repeng's is the first principal component of paired differences, a different direction by design."
    )
    facts = {"limit": limit, "runs": arguments.runs, "peers": PEERS}
    measure.write("finding", "python benchmarks/finding.py", rows, facts, table)


def _run(python: str, method: str, model: Path, prompts: Path) -> dict[str, float]:
    command = [python, str(SCRIPT), method, str(model), str(prompts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
