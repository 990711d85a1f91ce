"""What the benchmarks on one GPU share: their options, the model that is measured, and the table."""

import argparse
import re
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from roofline import Roofline, measured, name_of, timed

sys.path.append(str(Path(__file__).parents[1]))
import finding_methods as finding_methods
import measure as measure
import scoring as scoring

# A tiny shape, and those of Llama 3.2 1B and Llama 3.1 8B, with random weights: speed does not depend on what the weights say.
SHAPES: dict[str, dict[str, int]] = {
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}
TOKENIZER = "smollm2-135m"  # packaged; its prompts' lengths are those of every size, unless --tokenizer names a folder


@dataclass(frozen=True)
class Subject:
    """A model on a device, and what the device can do."""

    model: Any  # burnish.Model
    device: torch.device
    roof: Roofline
    size: str
    runs: int
    small: bool

    def row(self, name: str, call: Callable[[], object]) -> measure.Measurement:
        """Times a step; its peak is that of the device's memory, weights included, and 0 on a CPU."""
        gpu = self.device.type == "cuda"
        if gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        seconds = timed(self.device, call, self.runs)
        peak = torch.cuda.max_memory_allocated(self.device) / 2**20 if gpu else 0.0
        print(f"  {name}: {statistics.median(seconds):.4f} s", file=sys.stderr)
        return measure.Measurement(name, seconds, peak)

    def report(
        self, name: str, what: str, rows: list[measure.Measurement], least: dict[str, float], notes: list[str]
    ) -> dict[str, Any]:
        """Prints the table and, unless it was small, stores it under the device's name. least: of each row, seconds on the roofline.

        Returns the numbers.
        """
        lines = [
            "| step | median seconds | roofline, seconds | times the roofline | peak MB |",
            "|---|---|---|---|---|",
        ]
        for row in rows:
            bound = least[row.name]
            lines.append(
                f"| {row.name} | {row.median:.4g} | {bound:.4g} | {row.median / bound:.2f} | {row.peak_mb:.0f} |"
            )
        table = "\n".join([f"{self.roof}. {what}, {self.size}, median of {self.runs} runs.", "", *lines, "", *notes])
        numbers = [{**asdict(row), "median": row.median, "least": least[row.name]} for row in rows]
        if self.small:
            print(table)
            return {"what": what, "rows": numbers, "notes": notes}
        facts = {"roofline": asdict(self.roof), "torch": torch.__version__, "size": self.size, "least_seconds": least}
        measure.write(slug_of(name, self), f"python benchmarks/gpu/{name}.py --size {self.size}", rows, facts, table)
        return {"what": what, "rows": numbers, "notes": notes}


def slug_of(name: str, loaded: Subject) -> str:
    """What a result is stored as."""
    return re.sub(r"[^a-z0-9]+", "-", f"gpu-{name}-{loaded.size}-{name_of(loaded.device)}".lower()).strip("-")


def subject(description: str | None) -> Subject:
    """From the command line. `--device cpu --small` runs everything in minutes and stores nothing."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--size", default=None, choices=["135m", *SHAPES], help="default: 8b, with --small 135m")
    parser.add_argument("--runs", type=int, default=None, help="default: 5, with --small 1")
    parser.add_argument("--small", action="store_true", help="few prompts and tokens; prints and stores nothing")
    parser.add_argument(
        "--tokenizer", type=Path, help="folder with a tokenizer and its chat template: no packaged model is needed then"
    )
    options = parser.parse_args()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    size = options.size or ("135m" if options.small else "8b")
    runs = options.runs or (1 if options.small else 5)
    roof = measured(device, dtype, small=options.small)
    return Subject(_model(size, device, options.dtype, options.tokenizer), device, roof, size, runs, options.small)


def _model(size: str, device: torch.device, dtype: str, tokenizer: Path | None) -> Any:
    from burnish import ModelOptions, load
    from burnish.model.loading import load_tokenizer
    from burnish.model.model import Model
    from burnish.model.skeleton import anatomy_of
    from burnish.model.source import resolve

    if size not in SHAPES:
        return load(TOKENIZER, ModelOptions(dtype=dtype, device=str(device)))
    from transformers import AutoModelForCausalLM, LlamaConfig

    folder = tokenizer or resolve(TOKENIZER)
    words = load_tokenizer(folder, ModelOptions())
    config = LlamaConfig(vocab_size=len(words), tie_word_embeddings=False, **SHAPES[size])
    with device:
        network = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    network.eval().requires_grad_(False)
    model = Model(f"random {size}", folder, network, words, anatomy_of(network, config))
    vars(model)["fingerprint"] = model.name  # it was never stored
    return model


def weight_bytes(model: Any) -> int:
    """Bytes of the blocks and the unembedding: what every decoding step reads."""
    head = model.network.get_output_embeddings().weight
    return sum(w.numel() * w.element_size() for w in [*finding_methods.block_weights(model), head])
