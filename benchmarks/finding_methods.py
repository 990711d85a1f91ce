"""One method of the finding benchmark, in a process (and, for peers, an environment) of its own.

python finding_methods.py METHOD MODEL_FOLDER PROMPTS_JSON -> one JSON line: seconds, extra_mb, cosine
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

THREADS = 2
BATCH = 16  # of the peers and the plain loop
Directions = list[torch.Tensor]  # one [hidden] a layer


def load_plain(folder: str) -> tuple[Any, Any]:
    """Model and tokenizer by transformers alone; older versions know neither the tokenizer class nor the place of the rotary
    base that newer ones save."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    if int(transformers.__version__.split(".")[0]) < 5:
        stored = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        config.rope_theta = stored["rope_parameters"]["rope_theta"]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json")
    tokenizer.pad_token = "<|im_end|>"
    tokenizer.padding_side = "left"
    return model, tokenizer


def plain(folder: str, prompts: dict[str, Any]) -> Callable[[], Directions]:
    model, tokenizer = load_plain(folder)
    return lambda: plain_loop(model, tokenizer, prompts["rendered"])


def plain_loop(model: Any, tokenizer: Any, rendered: dict[str, list[str]]) -> Directions:
    """What a script does with transformers alone. tokenizer: pads on the left."""

    def mean(texts: list[str]) -> torch.Tensor:
        total = torch.zeros(model.config.num_hidden_layers, model.config.hidden_size, dtype=torch.float64)
        for start in range(0, len(texts), BATCH):
            part = tokenizer(
                texts[start : start + BATCH], return_tensors="pt", padding=True, return_token_type_ids=False
            ).to(model.device)
            with torch.inference_mode():
                states = model(**part, output_hidden_states=True).hidden_states
            total += torch.stack([s[:, -1].double().sum(0) for s in states[1:]]).cpu()
        return total / len(texts)

    return list(mean(rendered["enhance"]) - mean(rendered["normal"]))


def repeng(folder: str, prompts: dict[str, Any]) -> Callable[[], Directions]:
    from repeng import ControlVector, DatasetEntry

    model, tokenizer = load_plain(folder)
    pairs = [DatasetEntry(p, n) for p, n in zip(*prompts["rendered"].values(), strict=True)]

    def find() -> Directions:
        directions = ControlVector.train(model, tokenizer, pairs, batch_size=BATCH).directions
        layers = model.config.num_hidden_layers
        # repeng names layers from the end and leaves one out.
        return [
            torch.as_tensor(directions.get(i, directions.get(i - layers, next(iter(directions.values())))))
            for i in range(layers)
        ]

    return find


def steering_vectors(folder: str, prompts: dict[str, Any]) -> Callable[[], Directions]:
    from steering_vectors import train_steering_vector

    model, tokenizer = load_plain(folder)
    pairs = list(zip(*prompts["rendered"].values(), strict=True))

    def find() -> Directions:
        vectors = train_steering_vector(model, tokenizer, pairs, read_token_index=-1, batch_size=BATCH)
        return [vectors.layer_activations[i] for i in range(model.config.num_hidden_layers)]

    return find


def burnish(folder: str, prompts: dict[str, Any], *, report: bool = False) -> Callable[[], Directions]:
    from burnish.finding import find_direction
    from burnish.model.model import load
    from burnish.options import ModelOptions
    from burnish.prompts import as_prompts

    model = load(folder, ModelOptions(dtype="float32"))
    enhance, normal = (as_prompts(texts, name) for name, texts in prompts["texts"].items())
    held_out = tuple(as_prompts(texts, name) for name, texts in prompts["held_out"].items())
    if report:
        return lambda: list(
            find_direction(model, enhance=enhance, normal=normal, held_out=(held_out[0], held_out[1])).vectors
        )

    return lambda: directions_alone(model, enhance, normal)


def directions_alone(model: Any, enhance: Any, normal: Any) -> Directions:
    """Two means by our own pass, without report and null."""
    from burnish.model.capture import capture, prompt_sequences

    count = len(enhance)
    sums = torch.zeros(2, model.anatomy.layers, model.anatomy.hidden_size, dtype=torch.float64)

    def add(rows: list[int], states: torch.Tensor) -> None:
        for row, state in zip(rows, states, strict=True):
            sums[int(row >= count)] += state

    capture(model, prompt_sequences(model, enhance.prompts + normal.prompts), add)
    return list(sums[0] / count - sums[1] / len(normal))


def distinct_tokens(sequences: Iterable[Sequence[int]]) -> int:
    """Tokens whose states differ: what several sequences share at their start counts once."""
    return len({tuple(s[: i + 1]) for s in sequences for i in range(len(s))})


def block_weights(model: Any) -> list[torch.Tensor]:
    """The matrices of all blocks."""
    layers = model.network.get_submodule(model.anatomy.stack)
    return [m.weight for m in layers.modules() if isinstance(m, torch.nn.Linear)]


def limit(folder: str, prompts: dict[str, Any]) -> dict[str, float]:
    """FLOPs of the distinct tokens (shared prefixes counted once) and the rate of matrix products of these shapes."""
    from burnish.model.model import load
    from burnish.options import ModelOptions

    model = load(folder, ModelOptions(dtype="float32"))
    distinct = distinct_tokens(model.tokens(t) for texts in prompts["texts"].values() for t in texts)
    weights = block_weights(model)
    parameters = sum(w.numel() for w in weights)
    rows = 1024
    inputs = {w.shape[1]: torch.randn(rows, w.shape[1]) for w in weights}
    best = float("inf")
    with torch.inference_mode():
        for _ in range(4):
            started = time.perf_counter()
            for w in weights:
                torch.nn.functional.linear(inputs[w.shape[1]], w)
            best = min(best, time.perf_counter() - started)
    rate = 2 * rows * parameters / best
    flops = 2 * distinct * parameters
    return {"tokens": distinct, "gflop": flops / 1e9, "gflops": rate / 1e9, "seconds": flops / rate}


def status(key: str) -> float:
    """A memory figure of this process in MB (VmRSS now, VmHWM its peak)."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(key))) / 1024


def main() -> None:
    method, folder, path = sys.argv[1:]
    torch.set_num_threads(THREADS)
    prompts = json.loads(Path(path).read_text(encoding="utf-8"))
    if method == "limit":
        print(json.dumps(limit(folder, prompts)))
        return
    makers = {
        "plain": plain,
        "repeng": repeng,
        "steering-vectors": steering_vectors,
        "burnish": burnish,
        "burnish-report": lambda f, p: burnish(f, p, report=True),
    }
    find = makers[method](folder, prompts)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    before = status("VmRSS")
    started = time.perf_counter()
    vectors = torch.stack([v.double() for v in find()])
    seconds = time.perf_counter() - started
    extra = status("VmHWM") - before
    # The last layer is left out: transformers reports it after the final norm, and we before it.
    cosine = torch.cosine_similarity(vectors, reference(Path(path), vectors, method), dim=1)[:-1].mean()
    print(json.dumps({"seconds": seconds, "extra_mb": extra, "cosine": float(cosine)}))


def reference(path: Path, vectors: torch.Tensor, method: str) -> torch.Tensor:
    """Our directions, kept beside the prompts by our own first run."""
    file = path.with_suffix(".pt")
    if method == "burnish":
        torch.save(vectors, file)
    return torch.load(file)


if __name__ == "__main__":
    main()
