"""The adapter form: a PEFT LoRA folder whose product is exactly the edit."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from burnish.anatomy import LinearMap, Projection
from burnish.artifacts.bake import TensorEdit, oriented
from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.files import written
from burnish.maths.gain import LowRankEdit, adapter_factors, edit_weight


@dataclass(frozen=True)
class AdapterLayer:
    """LoRA's two factors for one projection: `B A` is the change of its weight."""

    projection: Projection | LinearMap
    a: Tensor  # [k, inputs]
    b: Tensor  # [hidden, k]
    bias: Tensor | None  # [hidden], edited, where the projection has one


def adapter_layer(
    projection: Projection | LinearMap, edit: LowRankEdit, weight: Tensor, bias: Tensor | None
) -> AdapterLayer:
    """weight: [hidden, inputs]; bias: [hidden] before the edit."""
    a, b = adapter_factors(weight, edit)
    edited = None if bias is None else edit_weight(bias[:, None], edit)[:, 0]
    return AdapterLayer(projection, a.contiguous(), b.contiguous(), edited)


def checkpoint_layers(source: Checkpoint, edits: Sequence[TensorEdit]) -> list[AdapterLayer]:
    """The factors of each edited projection, from the stored weights."""
    biases = {item.projection.path: source.read(item.name) for item in edits if item.is_bias}
    return [
        adapter_layer(
            item.projection,
            item.edit,
            oriented(source.read(item.name), item.projection),
            biases.get(item.projection.path),
        )
        for item in edits
        if not item.is_bias
    ]


def write_adapter(
    out: Path,
    layers: Sequence[AdapterLayer],
    about: dict[str, Any],
    extra: Callable[[Path], None] | None = None,
    *,
    base_model: str,
    overwrite: bool = False,
) -> Path:
    """Writes `adapter_config.json` and `adapter_model.safetensors` (float32) for `peft.PeftModel.from_pretrained`.

    `r = lora_alpha = k`, so that PEFT's scale is 1; layers of another rank than the first's get it by PEFT's patterns. A projection's bias is part of what the live and baked forms
    strengthen; LoRA has no term for its input-free part, so the edited bias itself is stored (PEFT's `bias="lora_only"`).
    extra: writes further files (card, enhancement) into the folder. Source: Hu et al. 2021, "LoRA", equation 3.
    """
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        stem = f"base_model.model.{layer.projection.path}"
        tensors[f"{stem}.lora_A.weight"] = layer.a
        tensors[f"{stem}.lora_B.weight"] = layer.b
        if layer.bias is not None:
            tensors[f"{stem}.base_layer.bias"] = layer.bias
    rank = len(layers[0].a)
    others = {re.escape(layer.projection.path): len(layer.a) for layer in layers if len(layer.a) != rank}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": rank,
        **({"rank_pattern": others, "alpha_pattern": others} if others else {}),
        "lora_dropout": 0.0,
        "bias": "lora_only" if any(layer.bias is not None for layer in layers) else "none",
        "fan_in_fan_out": layers[0].projection.layout == "in_out",
        "target_modules": sorted({layer.projection.path for layer in layers}),
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }
    with written(out, overwrite=overwrite) as partial:
        partial.mkdir()
        (partial / "adapter_model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
        (partial / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (partial / "burnish.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if extra is not None:
            extra(partial)
    return out


def adapter_bytes(projections: Sequence[Projection | LinearMap], rank: int) -> int:
    """About the size that the adapter's two files will have."""
    count = sum(rank * (p.inputs + p.outputs) + (p.outputs if p.bias else 0) for p in projections)
    return count * torch.float32.itemsize + 300 * len(projections) + 500  # names and settings
