"""Reads a LoRA adapter that anyone's PEFT wrote, as a pair of factors for each module that it changes."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from burnish.errors import InputError

LARGEST = 1e9  # of a rank or an alpha
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# PEFT writes "base_model.model.PATH.lora_A.weight"; some tools keep the adapter's name, "default", in it.
FACTOR = re.compile(r"(?:base_model\.model\.)?(?P<path>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
# Settings under which the adapter is more than `B A` added to the weights of linear maps, and what they do instead.
UNSUPPORTED = {
    "use_dora": "DoRA also rescales the whole weight",
    "modules_to_save": "whole modules were trained beside the LoRA factors",
    "trainable_token_indices": "embeddings were trained beside the LoRA factors",
    "target_parameters": "parameters outside linear maps, such as packed experts, are changed",
    "layer_replication": "layers of the model are repeated",
    "alora_invocation_tokens": "an activated LoRA starts in the middle of the text",
    "use_qalora": "QALoRA pools its inputs",
    "use_bdlora": "BD-LoRA stores diagonal blocks",
    "lora_bias": "its factors have a bias",
    "arrow_config": "Arrow routes tokens between adapters",
    "monteclora_config": "MonteCLoRA samples its factors",
    "kasa_config": "KaSA truncates the weights of the base model",
}
# Others change the base model as well.
PLAIN_STARTS = ("true", "false", "none", "gaussian", "eva", "orthogonal", "mica")


@dataclass(frozen=True, eq=False)
class LoraAdapter:
    """`W x` becomes `W x + B (A x)` in every adapted module. Two adapters are equal only if they are the same object."""

    name: str
    # By module path: A [r, inputs], B [outputs, r] with the scale in it; float32.
    factors: dict[str, tuple[Tensor, Tensor]]


def read_lora(folder: Path) -> LoraAdapter:
    """Reads `adapter_config.json` and `adapter_model.safetensors`; modules in sorted order, the name is the folder's.

    The scale is `alpha / r`, or `alpha / sqrt(r)` for rank-stabilised LoRA. Sources: Hu et al. 2021, "LoRA", section 4.1;
    Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA".

    Args:
        folder: of the adapter.

    Returns:
        Factors A [r, in] and B [out, r] of every module.

    Raises:
        InputError: files are missing or damaged, or the adapter is not plain LoRA on linear maps.
    """
    config = _config(folder)
    _require_plain(folder, config)
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in sorted(_tensors(folder).items()):
        match = FACTOR.fullmatch(name)
        if match is None or tensor.ndim != 2:
            raise _not_plain(folder, f"{name[:80]!r} {list(tensor.shape)} is no LoRA factor of a linear map")
        sides.setdefault(match["path"], {})[match["side"]] = tensor.float()
    if not sides:
        raise _damaged(folder, "it holds no factors")
    factors = {}
    for path, pair in sides.items():
        rank, scale = _rank_and_scale(folder, config, path)
        if set(pair) != {"A", "B"} or len(pair["A"]) != rank or pair["B"].shape[1] != rank:
            shapes = ", ".join(f"{side} {list(tensor.shape)}" for side, tensor in sorted(pair.items()))
            raise _damaged(
                folder, f"'{path}' has {shapes} where rank {rank} needs A [{rank}, inputs] and B [outputs, {rank}]"
            )
        if not all(bool(tensor.isfinite().all()) for tensor in pair.values()):
            raise _damaged(folder, f"the factors of '{path}' are not finite")
        # `fan_in_fan_out` needs nothing: it says how a merged change is stored, and the factors are the same either way.
        factors[path] = pair["A"], pair["B"] * scale
    return LoraAdapter(folder.resolve().name, factors)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(
            f"{folder} is no PEFT adapter: it has no {CONFIG}. Pass the folder that PEFT's save_pretrained wrote."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"{CONFIG} is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise _damaged(folder, f"{CONFIG} is not a table of settings")
    return config


def _tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        why = (
            "Other formats can run code when they are read."
            if (folder / "adapter_model.bin").exists()
            else "It is incomplete."
        )
        raise InputError(
            f"{folder} has no {WEIGHTS}. {why} Save the adapter again with PEFT's save_pretrained, as safetensors."
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _damaged(folder, f"{WEIGHTS} cannot be read ({error})") from error


def _require_plain(folder: Path, config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise _not_plain(folder, f"its type is {str(config.get('peft_type'))[:40]}")
    for key, what in UNSUPPORTED.items():
        if config.get(key):
            raise _not_plain(folder, f"{key} is set: {what}")
    if config.get("bias", "none") != "none":
        raise _not_plain(folder, f"bias is {str(config['bias'])[:40]!r}: biases were trained beside the LoRA factors")
    start = config.get("init_lora_weights", True)
    if str(start).lower() not in PLAIN_STARTS:
        raise InputError(
            f"{folder} cannot be compared: init_lora_weights is {str(start)[:40]!r}, a start that changes the base model's weights as well. "
            "Save it as plain LoRA with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)."
        )


def _rank_and_scale(folder: Path, config: dict[str, Any], path: str) -> tuple[int, float]:
    """(r, alpha / r or alpha / sqrt(r)) of a module; a pattern's first match goes before the general setting, as in PEFT."""
    values = []
    for pattern, general in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
        try:
            matching = (v for key, v in dict(config.get(pattern) or {}).items() if re.match(_expression(key), path))
            value = next(matching, config.get(general))
        except (re.error, ValueError, TypeError, RecursionError, OverflowError) as error:
            raise _damaged(folder, f"{pattern} holds an expression that cannot be read ({str(error)[:80]})") from error
        if not isinstance(value, int | float) or not abs(value) < LARGEST or (general == "r" and value < 1):
            raise _damaged(folder, f"{general} of '{path[:80]}' is {str(value)[:20]}")
        values.append(value)
    rank, alpha = int(values[0]), float(values[1])
    return rank, alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _expression(key: str) -> str:
    """PEFT's reading of a pattern. Raises ValueError for one that could take for ever: repeated groups, many repetitions."""
    if len(key) > 500 or re.search(r"\)[*+{]", key) or sum(map(key.count, "*+{")) > 4:
        raise ValueError("it is too long or repeats too much")
    return rf"(.*\.)?({key})$"


def _not_plain(folder: Path, why: str) -> InputError:
    return InputError(
        f"{folder} cannot be compared: {why}, and only plain LoRA on linear maps can be scaled beside the other methods. "
        "Pass an adapter that has only lora_A and lora_B weights, with bias 'none'."
    )


def _damaged(folder: Path, why: str) -> InputError:
    return InputError(f"{folder} is not a readable adapter: {why}. Download or save it again.")
