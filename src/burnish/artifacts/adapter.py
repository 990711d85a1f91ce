"""The adapter form: a PEFT LoRA folder whose product is exactly the edit."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from burnish.artifacts.bake import TensorEdit
from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.files import written
from burnish.errors import ModelError
from burnish.maths.gain import adapter_factors


def write_adapter(
    source: Checkpoint,
    out: Path,
    edits: Sequence[TensorEdit],
    about: dict[str, Any],
    extra: Callable[[Path], None] | None = None,
    *,
    base_model: str,
    overwrite: bool = False,
) -> Path:
    """Writes `adapter_config.json` and `adapter_model.safetensors` (float32) for `peft.PeftModel.from_pretrained`.

    `r = lora_alpha = k`, so that PEFT's scale is 1. A projection's bias is part of what the live and baked forms
    strengthen; LoRA has no term for its input-free part, so the edited bias itself is stored (PEFT's `bias="lora_only"`).
    Raises ModelError when there is nothing to write.
    """
    weights = [item for item in edits if not item.name.endswith(".bias")]
    if not weights:
        raise ModelError("Every gain is zero: there is no adapter to write. Pass a factor other than 0.")
    tensors: dict[str, Tensor] = {}
    for item in weights:
        weight = source.read(item.name)
        oriented = weight if item.projection.layout == "out_in" else weight.T
        a, b = adapter_factors(oriented, item.edit)
        stem = f"base_model.model.{item.projection.path}"
        tensors[f"{stem}.lora_A.weight"] = a.contiguous()
        tensors[f"{stem}.lora_B.weight"] = b.contiguous()
    biases = [item for item in edits if item.name.endswith(".bias")]
    for item in biases:
        bias = source.read(item.name).float()
        edited = bias + (item.edit.left.float() @ (item.edit.right.float() @ bias))
        tensors[f"base_model.model.{item.projection.path}.base_layer.bias"] = edited.contiguous()
    rank = weights[0].edit.rank
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "lora_only" if biases else "none",
        "fan_in_fan_out": weights[0].projection.layout == "in_out",
        "target_modules": sorted({item.projection.path for item in weights}),
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }
    with written(out, overwrite=overwrite) as partial:
        partial.mkdir()
        save_file(tensors, partial / "adapter_model.safetensors", metadata={"format": "pt"})
        (partial / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (partial / "burnish.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if extra is not None:
            extra(partial)
    return out


def adapter_bytes(edits: Sequence[TensorEdit]) -> int:
    """The size the adapter will have."""
    count = sum(item.edit.rank * (item.projection.inputs + item.projection.outputs) for item in edits)
    return count * torch.float32.itemsize
