"""llama.cpp itself, through the package xllamacpp: what it predicts after a prompt."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

PLAIN_LETTER = 69  # a token that is one letter in the tokenizers used here
Predict = Callable[..., list[torch.Tensor]]


def predictions(
    model: Path, prompts: list[list[int]], vocabulary: int, *, lora: Path | None = None, exact: bool = True
) -> Predict:
    """Starts llama.cpp on a file. Returns a function from a LoRA's scale (None: the request names none) to the log probabilities
    [vocabulary] after each prompt. exact: keys and values as float32; by default llama.cpp keeps them as float16."""
    llama = pytest.importorskip("xllamacpp", reason="xllamacpp (llama.cpp as a Python package) is not installed")
    settings = llama.CommonParams()
    settings.model.path = str(model)
    settings.n_ctx, settings.n_parallel, settings.warmup, settings.verbosity = 256, 1, False, -1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 2
    if exact:
        settings.cache_type_k = settings.cache_type_v = llama.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if lora is not None:
        adapter = llama.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = str(lora), 1.0
        settings.lora_adapters = [adapter]
    server = llama.Server(settings)

    def ask(scale: float | None = None) -> list[torch.Tensor]:
        answers = []
        for prompt in prompts:
            request = {
                "prompt": prompt,
                "max_tokens": 1,
                "n_probs": vocabulary,
                "temperature": 0,
                "cache_prompt": False,
                # The probabilities are those before any bias, but come only with a token that is text: neither an end nor half a letter.
                "logit_bias": [[PLAIN_LETTER, 1e3]],
            }
            if scale is not None:
                request["lora"] = [{"id": 0, "scale": scale}]
            reply = server.handle_completions(request)
            entries = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            assert len(entries) == vocabulary
            row = torch.empty(vocabulary)
            row[[entry["id"] for entry in entries]] = torch.tensor([entry["logprob"] for entry in entries])
            answers.append(row)
        return answers

    return ask


def furthest(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The largest difference of two sets of log probabilities, in nats."""
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))
