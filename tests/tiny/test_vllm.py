"""The conditions that vLLM puts on a LoRA folder, checked against the adapters written here.

Read in vLLM 0.33.0: vllm/lora/peft_helper.py (`PEFTHelper.from_dict`, `_validate_features`, `validate_legal`), vllm/lora/utils.py
(`parse_fine_tuned_lora_name`), vllm/lora/lora_model.py (`from_local_checkpoint`) and vllm/config/lora.py (`MaxLoRARanks`).
"""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from burnish.forms.base import Applied
from burnish.options import ModelOptions
from burnish.pipeline import export
from conftest import Folders, Models, random_enhancement
from families import VLLM

RANK = 2
FLOAT = ModelOptions(dtype="float32")
OFF = {  # settings that vLLM refuses when they are anything else
    "bias": "none",
    "modules_to_save": None,
    "use_dora": False,
    "lora_bias": False,
    "alora_invocation_tokens": None,
    "layer_replication": None,
    "use_bdlora": None,
    "use_qalora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "use_rslora": False,
    "init_lora_weights": True,
}


def adapter(family: str, tiny_folder: Folders, tiny_model: Models, out: Path) -> tuple[dict[str, Any], Applied]:
    enhancement = random_enhancement(tiny_model(family), 0.5, rank=RANK)
    applied = export(enhancement, out, model=tiny_folder(family), form="adapter", options=FLOAT)
    return json.loads((out / "adapter_config.json").read_text(encoding="utf-8")), applied


@pytest.mark.parametrize("family", VLLM)
def test_the_config_has_what_is_required_and_nothing_that_is_refused(
    family: str, tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    config, _ = adapter(family, tiny_folder, tiny_model, tmp_path / "a")
    assert config["peft_type"] == "LORA"
    assert config["r"] == RANK
    assert config["lora_alpha"] / config["r"] == 1  # vLLM's scale
    assert isinstance(config["target_modules"], list)
    assert {key: config.get(key, off) for key, off in OFF.items()} == OFF


@pytest.mark.parametrize("family", VLLM)
def test_every_tensor_is_a_factor_of_a_module_that_the_model_has(
    family: str, tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    adapter(family, tiny_folder, tiny_model, tmp_path / "a")
    model = tiny_model(family)
    expected = {}
    for projection in model.anatomy.attention():
        expected[f"base_model.model.{projection.path}.lora_A.weight"] = (RANK, projection.inputs)
        expected[f"base_model.model.{projection.path}.lora_B.weight"] = (projection.outputs, RANK)
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected
    # What stands at the top as .safetensors is taken for weights: the plan lies in a folder of its own.
    assert [p.name for p in (tmp_path / "a").glob("*.safetensors")] == ["adapter_model.safetensors"]


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama-biased"])
def test_a_bias_makes_an_adapter_that_vllm_refuses_and_that_is_said(
    family: str, tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    config, applied = adapter(family, tiny_folder, tiny_model, tmp_path / "a")
    assert config["bias"] == "lora_only"
    assert any("vLLM takes no biases" in note for note in applied.notes)


def test_vllms_own_checks_pass(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    peft_helper = pytest.importorskip("vllm.lora.peft_helper", reason="vLLM is not installed")
    lora_config = pytest.importorskip("vllm.config.lora").LoRAConfig(max_lora_rank=8)
    adapter("llama", tiny_folder, tiny_model, tmp_path / "a")
    helper = peft_helper.PEFTHelper.from_local_dir(str(tmp_path / "a"), 4096)
    helper.validate_legal(lora_config)
    assert helper.vllm_lora_scaling_factor == 1
