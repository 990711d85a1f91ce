"""What the commands read that are killed, or whose disk is full."""

import json
from pathlib import Path

import pytest
import torch

from burnish.model.model import load
from burnish.options import ModelOptions
from conftest import Folders, random_enhancement
from gguf_files import Kind, enhancement, write_model

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def sources(tiny_folder: Folders, tmp_path: Path) -> Path:
    """A folder with all that the commands read."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "base").symlink_to(tiny_folder("llama", dtype=torch.bfloat16, shard="20KB"))
    random_enhancement(load(folder / "base", ModelOptions(dtype="float32")), 0.5).save(folder / "plan.safetensors")
    write_model(folder / "model.gguf", Kind.Q8_0)
    enhancement().save(folder / "gguf-plan.safetensors")
    for name, end, start in (("enhance", " ?!", 0), ("normal", " ...", 3)):
        letters = [LETTERS[(start + 7 * i + i // 26) % 26] for i in range(60)]
        lines = ["".join(letters[i : i + 3 + i % 5]) + end for i in range(40)]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    rows = [{"prompt": f"What is {w}?", "completion": f"{w} is {w}."} for w in "abcdefghijkl"]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
