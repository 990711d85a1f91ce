"""Several enhancements as LoRA modules of one vLLM engine: equal to the live form, and what they cost in speed.

python benchmarks/gpu/vllm_lora.py --model MODEL --enhancement NAME=ADAPTER_FOLDER [--enhancement ...]

Needs a GPU that vLLM runs on, `pip install vllm`, and adapters made by `burnish enhance --form adapter` on this very model. Says
(1) how far vLLM's log probabilities of the same tokens are from transformers' with the live form, next to how far the two are on
the base model; (2) tokens per second without LoRA, with one and with all adapters in one batch. Written to
benchmarks/results/vllm_lora.json with the device's name. Exit code 1 when an adapter is further off than the base model allows.
"""

import argparse
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent.parent / "results" / "vllm_lora.json"
TEXTS = (
    "The lighthouse stood above the harbour, and at dusk its lamp",
    "Photosynthesis is the process by which plants",
    "To sort a list in Python, you call",
    "The committee agreed that the budget for next year",
)
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM allows for --max-lora-rank
SLACK = 3.0  # times the difference on the base model
BATCH, TOKENS = 64, 128


def by_transformers(model: str, adapters: dict[str, Path], rows: list[list[int]]) -> dict[str, list[list[float]]]:
    """Log probabilities of each row's own tokens, for the base model and each enhancement."""
    from burnish import load
    from burnish.artifacts.files import PLAN_FILE
    from burnish.options import ModelOptions
    from burnish.pipeline import read_enhancement

    loaded = load(model, ModelOptions(dtype="bfloat16", device="cuda"))

    @torch.inference_mode()
    def score() -> list[list[float]]:
        values = []
        for row in rows:
            ids = torch.tensor([row], device=loaded.device)
            logits = loaded.network(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
            values.append(logits.gather(1, ids[0, 1:, None])[:, 0].tolist())
        return values

    scores = {"base": score()}
    for name, folder in adapters.items():
        with loaded.enhanced(read_enhancement(folder / PLAN_FILE, None, "all")):
            scores[name] = score()
    return scores


def by_vllm(engine: Any, rows: list[list[int]], lora: Any) -> list[list[float]]:
    from vllm import SamplingParams

    settings = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    outputs = engine.generate([{"prompt_token_ids": row} for row in rows], settings, lora_request=lora)
    return [
        [entry[token].logprob for entry, token in zip(output.prompt_logprobs[1:], row[1:], strict=True)]
        for output, row in zip(outputs, rows, strict=True)
    ]


def speed(engine: Any, rows: list[list[int]], loras: list[Any]) -> float:
    """Tokens per second of a full batch in which each adapter (or none) takes its turn."""
    from vllm import SamplingParams

    settings = SamplingParams(max_tokens=TOKENS, temperature=0, ignore_eos=True)
    prompts = [{"prompt_token_ids": rows[i % len(rows)]} for i in range(BATCH)]
    requests = [loras[i % len(loras)] for i in range(BATCH)]
    engine.generate(prompts, settings, lora_request=requests)
    started = time.perf_counter()
    engine.generate(prompts, settings, lora_request=requests)
    return BATCH * TOKENS / (time.perf_counter() - started)


def distance(one: list[list[float]], other: list[list[float]]) -> float:
    """Mean absolute difference of log probabilities, nats per token."""
    pairs = [(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    return sum(abs(a - b) for a, b in pairs) / len(pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the base model: folder or hub id")
    parser.add_argument("--enhancement", action="append", required=True, metavar="NAME=FOLDER")
    arguments = parser.parse_args()
    adapters = {name: Path(folder) for name, _, folder in (item.partition("=") for item in arguments.enhancement)}

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    rows = [tokenizer(text)["input_ids"] for text in TEXTS]
    expected = by_transformers(arguments.model, adapters, rows)
    gc.collect()
    torch.cuda.empty_cache()  # vLLM wants most of the memory

    import vllm
    from vllm.lora.request import LoRARequest

    ranks = [json.loads((folder / "adapter_config.json").read_text())["r"] for folder in adapters.values()]
    engine = vllm.LLM(
        arguments.model,
        dtype="bfloat16",
        enable_lora=True,
        max_loras=len(adapters),
        max_lora_rank=next(rank for rank in RANKS if rank >= max(ranks)),
    )
    requests = {
        name: LoRARequest(name, i, str(folder.resolve())) for i, (name, folder) in enumerate(adapters.items(), 1)
    }
    floor = distance(expected["base"], by_vllm(engine, rows, None))
    adapters_checked = {}
    for name, request in requests.items():
        off = distance(expected[name], by_vllm(engine, rows, request))
        adapters_checked[name] = {
            "moved": distance(expected["base"], expected[name]),
            "off": off,
            "agrees": off <= SLACK * floor,
        }
    everyone = list(requests.values())
    result = {
        "device": torch.cuda.get_device_name(),
        "vllm": vllm.__version__,
        "model": arguments.model,
        "base_off": floor,
        "adapters": adapters_checked,
        "tokens_per_second": {
            "no adapter": speed(engine, rows, [None]),
            "one adapter": speed(engine, rows, everyone[:1]),
            "all adapters in one batch": speed(engine, rows, everyone),
        },
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    return 0 if all(entry["agrees"] for entry in adapters_checked.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
