"""Foreign LoRA adapters: what is read, what is refused, and how it is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from burnish.artifacts.lora import read_lora
from burnish.errors import InputError

PATH = "model.layers.0.mlp.down_proj"
A, B = torch.arange(8.0).view(2, 4), torch.arange(6.0).view(3, 2)
FACTORS = {f"base_model.model.{PATH}.lora_A.weight": A, f"base_model.model.{PATH}.lora_B.weight": B}


def written(folder: Path, tensors: dict[str, torch.Tensor] = FACTORS, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "bias": "none", **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, 4.0),
        ({"use_rslora": True}, 8 / 2**0.5),
        ({"alpha_pattern": {"up_proj": 1, "mlp.down_proj": 6, "down_proj": 9}}, 3.0),
        ({"alpha_pattern": {"proj": 6}}, 4.0),  # a pattern is the end of a path, in whole words
        ({"r": 5, "rank_pattern": {r"layers\.\d\.mlp\.down_proj": 2}}, 4.0),
        ({"alpha_pattern": None, "init_lora_weights": "gaussian", "fan_in_fan_out": True}, 4.0),
    ],
)
def test_the_scale_is_folded_into_b(settings: dict[str, Any], scale: float, tmp_path: Path) -> None:
    lora = read_lora(written(tmp_path / "own", **settings))
    assert lora.name == "own"
    assert list(lora.factors) == [PATH]
    torch.testing.assert_close(lora.factors[PATH][0], A, rtol=0, atol=0)
    torch.testing.assert_close(lora.factors[PATH][1], B * scale)


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_names_with_the_adapters_name_and_half_precision_are_read(prefix: str, tmp_path: Path) -> None:
    tensors = {f"{prefix}{PATH}.lora_{s}.default.weight": t.bfloat16() for s, t in (("A", A), ("B", B))}
    lora = read_lora(written(tmp_path / "own", tensors))
    assert lora.factors[PATH][0].dtype == torch.float32
    torch.testing.assert_close(lora.factors[PATH][1], 4 * B)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, "its type is IA3"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"bias": "lora_only"}, "biases were trained"),
        ({"lora_bias": True}, "factors have a bias"),
        ({"init_lora_weights": "pissa_niter_4"}, "path_initial_model_for_weight_conversion"),
        ({"r": 3}, "rank 3 needs"),
        ({"r": 0}, "r of "),
        ({"lora_alpha": "high"}, "lora_alpha of "),
        ({"alpha_pattern": {"(": 1}}, "expression"),
    ],
)
def test_settings_that_are_not_plain_lora_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_lora(written(tmp_path / "own", **settings))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "no factors"),
        ({f"base_model.model.{PATH}.lora_A.weight": A}, "needs A"),
        ({**FACTORS, f"base_model.model.{PATH}.lora_magnitude_vector": torch.ones(3)}, "lora_magnitude_vector"),
        ({"base_model.model.model.embed_tokens.lora_embedding_A": A}, "embed_tokens"),
        ({**FACTORS, f"base_model.model.{PATH}.lora_B.weight": B / 0}, "not finite"),
        ({n: t[..., None, None] for n, t in FACTORS.items()}, "no LoRA factor of a linear map"),
    ],
)
def test_tensors_that_are_not_plain_lora_are_refused(
    tensors: dict[str, torch.Tensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        read_lora(written(tmp_path / "own", tensors))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no adapter_config\.json"):
        read_lora(tmp_path)
    folder = written(tmp_path / "own")
    (folder / "adapter_model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(InputError, match="cannot be read"):
        read_lora(folder)
    for text in ("{", "[]"):
        (folder / "adapter_config.json").write_text(text)
        with pytest.raises(InputError, match=r"adapter_config\.json is not"):
            read_lora(folder)
