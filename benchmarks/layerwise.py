"""Finding a direction layer by layer in a 4 GB checkpoint under a memory cap of 1.5 GB, against its limits.

python benchmarks/layerwise.py [--folder FOLDER] [--prompts 95] [--held-out 32] [--cap 1.5]

The cap is RLIMIT_DATA, which the kernel enforces: it counts the heap and every private writable mapping (of tensors, thread
stacks, libraries' data), and refuses what goes beyond. It does not count the system's file cache nor the read-only code of libraries. The
weights are dropped from the file cache before every step.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import baking
import measure

WIDTH = 1792  # of the model
BURNISH = [sys.executable, "-c", "from burnish.cli import main; main()"]


def make_tokenizer(folder: Path) -> None:
    """A tokenizer with one token a byte and no template."""
    import tokenizers
    import transformers

    vocabulary = {t: i for i, t in enumerate(["</s>", *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())])}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>").save_pretrained(folder)


def prepare(root: Path, prompts: int, held_out: int) -> None:
    """The checkpoint, its tokenizer and the two files of prompts."""
    from burnish.prompts.domains import load_domain, load_general

    baking.make_checkpoint(root / "kanana-geometry")
    make_tokenizer(root / "kanana-geometry")
    domain, general = load_domain("creative-writing"), load_general("en")
    for name, (tune, held) in {
        "enhance": (domain.enhance, domain.held_out),
        "normal": (general.prompts, general.held_out),
    }.items():
        texts = [*tune.texts, *held.texts][: prompts + held_out]
        (root / f"{name}.txt").write_text("\n".join(" ".join(t.split()) for t in texts) + "\n", encoding="utf-8")


def forget(folder: Path) -> None:
    """Drops the weights from the file cache, so that they are read from the disk."""
    os.sync()
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def capped(cap: int, command: list[str]) -> list[str]:
    """The command, started in a process that may not have more than `cap` bytes of data."""
    return [sys.executable, __file__, "--capped", str(cap), *command]


def disk_rate(folder: Path) -> float:
    """Bytes a second of reading all weights once, in order."""
    forget(folder)
    done, started = 0, time.perf_counter()
    buffer = bytearray(16 << 20)
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while size := file.readinto(buffer):
                done += size
    return done / (time.perf_counter() - started)


def matmul_rate() -> float:
    """Operations a second of a batch times the largest matrices of a block, best of several."""
    import torch

    left, best = torch.randn(512, 1792).bfloat16(), 0.0
    weights = [torch.randn(8064, 1792).bfloat16() for _ in range(3)]  # more than the processor's caches hold
    for round_ in range(10):
        started = time.perf_counter()
        for weight in weights:
            torch.nn.functional.linear(left, weight)
        seconds = time.perf_counter() - started
        best = max(best, 3 * 2 * 512 * 1792 * 8064 / seconds) if round_ else 0.0
    return best


def loaded_whole(model: Path, out: Path, files: list[str], cap: int) -> str:
    """What the ordinary path says under the same cap."""
    command = [*BURNISH, "find", str(model), *files, "--no-layer-by-layer", "-o", str(out), "--overwrite"]
    done = subprocess.run(capped(cap, command), capture_output=True, text=True)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return f"exit code {done.returncode}: {last.replace(str(model), model.name)[:160]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="where the 4 GB checkpoint is made and kept")
    parser.add_argument("--prompts", type=int, default=95, help="of each set")
    parser.add_argument("--held-out", type=int, default=32, help="of each set")
    parser.add_argument("--cap", type=float, default=1.5, help="GB")
    parser.add_argument("--prepare", action="store_true", help="make the checkpoint and the prompts, and stop")
    arguments = parser.parse_args()
    cap = int(arguments.cap * 1e9)
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        if arguments.prepare:
            prepare(root, arguments.prompts, arguments.held_out)
            return
        sizes = ["--prompts", str(arguments.prompts), "--held-out", str(arguments.held_out)]
        subprocess.run([sys.executable, __file__, "--prepare", "--folder", str(root), *sizes], check=True)
        model, out = root / "kanana-geometry", root / "direction.safetensors"
        files = ["--enhance", str(root / "enhance.txt"), "--normal", str(root / "normal.txt")]
        files += ["--instructions", str(arguments.prompts), "--force"]
        find = [*BURNISH, "find", str(model), *files, "--layer-by-layer", "-o", str(out), "--overwrite", "--json"]
        disk = disk_rate(model)
        forget(model)
        opening, _, planned = measure.timed_process(capped(cap, [*find, "--dry-run"]))
        forget(model)
        seconds, peak, output = measure.timed_process(capped(cap, find))
        loaded = loaded_whole(model, out, files, cap)
        size = sum(p.stat().st_size for p in model.glob("*.safetensors"))
    cost = json.loads(planned)["layer_by_layer"]
    held_out = json.loads(output)["report"]["held_out"]
    running, products = seconds - opening, matmul_rate()
    tokens, blocks = (cost["states_bytes"] // 2 // WIDTH, cost["disk_bytes_read"] // 2)  # bfloat16; states kept are few
    arithmetic, reading = 2 * blocks * tokens / products, cost["disk_bytes_read"] / disk
    rows = [
        ("arithmetic limit", f"{arithmetic:.1f}", f"at the {products / 1e9:.0f} GFLOP/s of bare matrix products"),
        ("disk limit", f"{reading:.1f}", f"{cost['disk_bytes_read'] / 1e9:.2f} GB at {disk / 1e9:.2f} GB/s"),
        ("measured", f"{running:.1f}", f"{running / max(arithmetic, reading):.2f} times the higher limit"),
        ("measured, with start and opening", f"{seconds:.1f}", f"peak resident memory {peak:.0f} MB"),
    ]
    lines = ["| | seconds | |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    text = [
        f"{size / 1e9:.2f} GB of bfloat16 weights (random, the geometry of Kanana Nano 2.1B), {arguments.prompts} + {arguments.prompts} prompts and "
        f"{held_out} held-out ones, one token a byte; {threads} thread(s); no more than {arguments.cap} GB of data (RLIMIT_DATA, which counts "
        "the heap and all private writable mappings, and not the file cache); weights dropped from the file cache before each step.",
        "\n".join(lines),
        f"The ordinary path under the same cap: {loaded}",
    ]
    facts = {
        "bytes": size,
        "cap": cap,
        "prompts": arguments.prompts,
        "plan": cost,
        "disk_rate": disk,
        "products_rate": products,
        "whole": loaded,
        "threads": threads,
    }
    found_rows = [
        measure.Measurement("find --layer-by-layer", [seconds], peak),
        measure.Measurement("its dry run", [opening], 0.0),
    ]
    command = f"python benchmarks/layerwise.py --prompts {arguments.prompts} --held-out {arguments.held_out} --cap {arguments.cap:g}"
    measure.write("layerwise", command, found_rows, facts, "\n\n".join(text))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--capped"]:
        resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]), int(sys.argv[2])))
        os.execv(sys.argv[3], sys.argv[3:])
    main()
