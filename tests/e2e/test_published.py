"""`--method published` against an independent reading of the formula, on a tiny model of Kanana Nano's geometry."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor

from burnish.artifacts.direction import Enhancement
from burnish.artifacts.files import PLAN_FILE
from conftest import Call, Folders

INSTRUCTIONS, DEPTH, FACTOR = 95, 0.6, 1.5  # of the model card
PROJECTION = "self_attn.o_proj.weight"


def instructions(opening: str) -> list[str]:
    return [f"{opening} {chr(97 + i % 26)}{chr(97 + i // 26)}{'e' * (i % 4)}" for i in range(INSTRUCTIONS)]


def last_state(network: Any, tokenizer: Any, instruction: str, layer: int) -> Tensor:
    """The hidden state of the last prompt token behind one block, [hidden]."""
    turn = [{"role": "user", "content": instruction}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    state: Tensor = network(ids, output_hidden_states=True).hidden_states[layer + 1][0, -1]
    return state


@torch.inference_mode()
def by_the_formula(folder: Path, enhance: list[str], normal: list[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """The direction [hidden], and every weight with `W' = W + factor * v (v^T W)` in each attention output projection."""
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    layer = int(DEPTH * network.config.num_hidden_layers)
    sides = [torch.stack([last_state(network, tokenizer, one, layer) for one in side]) for side in (enhance, normal)]
    difference = sides[0].mean(0) - sides[1].mean(0)
    direction = difference / difference.norm()
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if name.endswith(PROJECTION):
            weights[name] = weight + FACTOR * torch.outer(direction, direction @ weight)
    return direction, weights


@pytest.mark.parametrize("family", ["kanana"])
def test_the_published_model_card_is_reproduced_step_by_step(
    family: str, tiny_folder: Folders, call: Call, tmp_path: Path
) -> None:
    folder, out = tiny_folder(family), tmp_path / "out"
    enhance, normal = instructions("Write a tale of"), instructions("List facts:")
    for name, texts in (("enhance", enhance), ("normal", normal)):
        (tmp_path / name).with_suffix(".txt").write_text("\n".join(texts), encoding="utf-8")
    files = ("--enhance", tmp_path / "enhance.txt", "--normal", tmp_path / "normal.txt")
    code, result, err = call(
        "enhance", folder, *files, "--method", "published", "-o", out, "--check-prompts 0 --dtype float32 --json"
    )
    assert code == 0, err
    direction, weights = by_the_formula(folder, enhance, normal)

    provenance = result["direction"]["provenance"]
    assert (provenance["enhance_prompts"], provenance["normal_prompts"]) == (INSTRUCTIONS, INSTRUCTIONS)
    plan = Enhancement.load(out / PLAN_FILE)
    assert plan.gains.tolist() == [[FACTOR]] * len(plan.vectors)
    torch.testing.assert_close(plan.vectors[:, 0], direction.expand_as(plan.vectors[:, 0]), rtol=0, atol=2e-6)

    written = safetensors.torch.load_file(out / "model.safetensors")
    projections = [name for name in weights if name.endswith(PROJECTION)]
    assert len(projections) == len(plan.vectors)
    assert all(weights[name].shape == (56, 96) for name in projections)  # not square, as 1792 and 3072 are not
    assert written.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(written[name], weight, rtol=0, atol=1e-5 if name in projections else 0)
