"""`burnish bench`: a row of figures of one's own model, and a prediction for models that are not there."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from burnish.benching import measured, plan_table, row
from burnish.prompts.contrast import Contrast
from conftest import Call, Folders, Models
from processes_example import FEW, sets, verse

PLAN = ("bench", "--plan", "--teraflops", 1, "--dtype", "bfloat16", "--json")


STAGE = {"seconds": 1.25, "bytes": 2_000_000_000}
FACTS = {
    "model": "owner/name",
    "dtype": "float32",
    "parameters": 135_000_000,
    "domain": "education",
    "steps": 2,
    "stages": {"find": STAGE, "enhance": STAGE, "write": {**STAGE, "device_bytes": 500_000_000}},
    "effect": {"mean": 0.5, "low": 0.4, "high": 0.6},
    "kl": 0.0123,
    "burnish": "0.1.0",
    "processor": "a processor",
    "threads": 2,
}


def test_a_row_says_effect_and_damage_or_that_the_model_is_left_alone() -> None:
    heads, line, cells = row(FACTS).splitlines()
    assert heads.count("|") == line.count("|") == cells.count("|")
    assert "enhance (2 steps)" in heads
    assert "| 1.2 s, 2.00 GB | 1.2 s, 0.50 GB | 0.50 [0.40, 0.60] | 0.0123 |" in cells
    assert "| left alone |  |" in row({**FACTS, "effect": None})


@pytest.mark.full
def test_every_stage_is_measured_and_no_path_is_told(tiny_model: Models) -> None:
    model = tiny_model("llama")
    facts = measured(model, Contrast(*sets("?!")), verse(), FEW)
    assert facts.keys() >= FACTS.keys()
    assert list(facts["stages"]) == ["find", "enhance", "write"]
    weights = sum(file.stat().st_size for file in model.folder.glob("*.safetensors"))
    assert all(stage["seconds"] > 0 and stage["bytes"] > weights for stage in facts["stages"].values())
    assert facts["written_bytes"] > weights
    assert (facts["effect"] is None) == (facts["kl"] is None) == facts["abstained"]
    assert str(model.folder.parent) not in json.dumps(facts)


def test_a_plan_needs_no_weights_and_says_what_is_not_in_it(
    tiny_folder: Folders, call: Call, tmp_path: Path, no_weights: None
) -> None:
    shutil.copytree(tiny_folder("llama"), tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    code, facts, err = call(*PLAN, tmp_path / "model")
    assert code == 0, err
    assert facts["weights_bytes"] == 2 * facts["parameters"]
    assert facts["place"] == "one device holds the model"
    assert 0 < facts["find"]["tokens"] < facts["enhance"]["tokens"]
    assert "Not predicted: loading" in plan_table(facts)


def test_devices_share_the_work_where_each_holds_the_model_and_take_turns_where_none_does(
    tiny_folder: Folders, call: Call
) -> None:
    def planned(devices: int, memory: float) -> Any:
        code, facts, err = call(*PLAN, tiny_folder("llama"), "--devices", devices, "--device-memory", memory)
        assert code == 0, err
        return facts

    one, eight = planned(1, 80), planned(8, 80)
    assert eight["find"]["seconds"] == pytest.approx(one["find"]["seconds"] / 8)
    assert one["enhance"]["seconds"] / 8 < eight["enhance"]["seconds"] < one["enhance"]["seconds"]
    needed = (one["weights_bytes"] + one["working_bytes"]) / 1e9
    spread = planned(8, needed / 4)
    assert "--device spread" in str(spread["place"])
    assert spread["enhance"]["seconds"] == pytest.approx(one["enhance"]["seconds"])
    assert "does not fit" in str(planned(8, needed / 16)["place"])


@pytest.mark.parametrize(("flags", "why"), [("--devices 8", "Pass --plan"), ("--plan --devices 0", "above 0")])
def test_devices_are_those_of_a_plan(flags: str, why: str, call: Call, tiny_folder: Folders, no_weights: None) -> None:
    code, _, err = call("bench", tiny_folder("llama"), *flags.split())
    assert code == 2
    assert why in err
