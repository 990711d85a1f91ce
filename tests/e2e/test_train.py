"""`burnish train` as a stranger meets it."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from burnish.model.model import load
from burnish.options import ModelOptions
from conftest import Call, Folders, random_enhancement

QUICK = ("--steps", 3, "--batch", 4, "--rank", 2, "--learning-rate", 0.01, "--check-prompts", 2)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"prompt": f"What is {w}?", "completion": f"{w} is {w}."}) for w in "abcdefghijkl"]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def direction(tiny_folder: Folders, tmp_path: Path) -> Path:
    model = load(tiny_folder("llama"), ModelOptions(dtype="float32"))
    return random_enhancement(model, 0.2).save(tmp_path / "plan.safetensors")


def test_an_adapter_is_trained_changed_in_strength_and_verified_as_a_model(
    tiny_folder: Folders, rows: Path, direction: Path, call: Call, tmp_path: Path
) -> None:
    model, out = tiny_folder("llama"), tmp_path / "out"
    given = ("train", model, "--data", rows, "--with", direction, *QUICK)
    code, result, err = call(*given, "-o", out, "--json")
    assert code == 0, err
    assert result["combine"] == "keep"
    assert result["steps"] == 3
    assert result["check"]["prompts"] == 2
    assert {p.name for p in out.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "burnish", "burnish.json"
    }  # fmt: skip
    assert "it stays underneath the LoRA" in (out / "README.md").read_text()
    assert not (tmp_path / "out.training").exists()
    assert "burnish apply" in err

    code, _, err = call("apply", model, out, "--enhancement-factor", 0.5, "-o", tmp_path / "half", "--form", "model")
    assert code == 0, err
    record = json.loads((tmp_path / "half" / "burnish.json").read_text())
    assert record["enhancement_factor"] == 0.5
    assert {round(g, 2) for gain in record["gains"] for g in gain["realised"]} == {0.1}
    code, result, err = call("verify", model, tmp_path / "half", "--json")
    assert (code, result["clean"]) == (0, True), err


def test_what_a_training_wrote_is_not_taken_for_its_direction_alone(
    tiny_folder: Folders, rows: Path, direction: Path, call: Call, tmp_path: Path
) -> None:
    model, out = tiny_folder("llama"), tmp_path / "out"
    assert call("train", model, "--data", rows, "--with", direction, *QUICK, "-o", out)[0] == 0
    code, _, err = call("chat", model, "--with", out, "--prompt", "Well?")
    assert code == 2
    assert "holds a trained LoRA beside its direction" in err
    code, _, err = call("apply", model, out, "-o", tmp_path / "again", "--layers", "1..2")
    assert code == 2
    assert "--layers" in err


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"asked": "Who?", "completion": "A."}, "line 2 has no 'prompt'"),
        ({"prompt": "Who?", "completion": "long " * 80}, "row 2 is .* tokens long, and the model reads 256"),
    ],
)
def test_bad_data_is_refused_before_weights_are_loaded(
    row: dict[str, str], message: str, tiny_folder: Folders, call: Call, tmp_path: Path
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"prompt": "What?", "completion": "That."}) + "\n" + json.dumps(row) + "\n")
    code, _, err = call("train", tiny_folder("llama"), "--data", path, *QUICK, "-o", tmp_path / "out")
    assert code == 2
    assert re.search(message, err), err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_weights")
def test_an_answer_that_the_template_cuts_out_is_refused(
    tiny_folder: Folders, rows: Path, call: Call, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_folder("llama"), tmp_path / "model")
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        path = model / name
        if path.exists():
            path.write_text(path.read_text().replace("m['content']", "m['content'] if m['role'] == 'user' else ''"))
    code, _, err = call("train", model, "--data", rows, *QUICK, "-o", tmp_path / "out")
    assert code == 2
    assert "template does not put this answer behind the prompt" in err


@pytest.mark.usefixtures("no_weights")
def test_a_dry_run_says_what_it_would_do_and_writes_nothing(
    tiny_folder: Folders, rows: Path, call: Call, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, result, err = call(
        "train", tiny_folder("llama"), "--data", rows, "--knowledge", rows, *QUICK, "-o", out, "--dry-run --json"
    )
    assert code == 0, err
    assert (result["combine"], result["style_rows"], result["knowledge_rows"]) == ("plain", 11, 11)
    assert result["steps"] == 3
    assert result["trained"] == 2 * sum((32 + 32) * 2 + (32 + 16) * 2 + (32 + 48) * 3 for _ in range(3))
    assert result["tokens"] > 0
    assert not list(tmp_path.glob("out*"))


def test_a_killed_command_goes_on_and_leaves_nothing_behind(
    tiny_folder: Folders, rows: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from burnish.hybrid import trainers

    given = ("train", tiny_folder("llama"), "--data", rows, *QUICK, "--check-every", 1)
    assert call(*given, "-o", tmp_path / "whole")[0] == 0
    real = trainers.Watch.on_step_end

    def killed(self: Any, arguments: Any, state: Any, control: Any, **named: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt
        real(self, arguments, state, control, **named)

    monkeypatch.setattr(trainers.Watch, "on_step_end", killed)
    assert call(*given, "-o", tmp_path / "out")[0] == 130
    assert (tmp_path / "out.training" / "checkpoint-1").is_dir()
    monkeypatch.setattr(trainers.Watch, "on_step_end", real)
    assert call(*given, "-o", tmp_path / "out")[0] == 0
    assert not (tmp_path / "out.training").exists()
    names = "adapter_model.safetensors"
    assert (tmp_path / "out" / names).read_bytes() == (tmp_path / "whole" / names).read_bytes()


def test_without_trl_the_cure_is_named(
    tiny_folder: Folders, rows: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    code, _, err = call("train", tiny_folder("llama"), "--data", rows, "-o", tmp_path / "out")
    assert code == 2
    assert "pip install 'burnish[train]'" in err


def test_the_adapter_loads_in_plain_peft_and_merges_to_the_baked_model(
    tiny_folder: Folders, rows: Path, direction: Path, call: Call, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = tiny_folder("llama")
    given = ("train", model, "--data", rows, "--with", direction, *QUICK)
    assert call(*given, "-o", tmp_path / "adapter")[0] == 0
    assert call(*given, "-o", tmp_path / "model", "--form", "model")[0] == 0
    base = AutoModelForCausalLM.from_pretrained(model)
    merged = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().state_dict()
    baked = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    for name, tensor in baked.items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-5, atol=1e-6)
