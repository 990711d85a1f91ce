"""Loading: the mission's geometry, base models, and models that cannot be used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from burnish.errors import ModelError, ModelNotFoundError
from burnish.model.model import load
from burnish.model.source import resolve
from conftest import Folders

IN_A_FRESH_PROCESS = """
import sys
from burnish.model.model import load
model = load(sys.argv[1])
model.network.save_pretrained(sys.argv[2])
model.tokenizer.save_pretrained(sys.argv[2])
again = load(sys.argv[2])
assert again.anatomy.projections[0].inputs == 96 and again.anatomy.hidden_size == 56
print(again.chat("Hello", tokens=3) == model.chat("Hello", tokens=3))
"""


def test_a_hidden_size_that_is_no_multiple_of_the_heads_loads_saves_and_reloads(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    """In a fresh process, where nothing has relaxed the library's check before."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, str(tiny_folder("kanana")), str(tmp_path / "copy")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip().endswith("True"), done.stderr


def test_a_template_that_writes_the_first_token_gets_no_second_one(tiny_folder: Folders) -> None:
    tokens = load(tiny_folder("llama")).tokens("Hello")
    assert tokens[0] == 1
    assert tokens.count(1) == 1


def test_a_base_model_reads_raw_prompts(tiny_folder: Folders) -> None:
    model = load(tiny_folder("llama", template=False))
    assert not model.chat_template
    assert model.render("Hello") == "Hello"
    assert model.tokens("Hello")[0] == 1


@pytest.mark.parametrize("name", ["no-such-model", "./no/such/folder", "missing.gguf"])
def test_a_model_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=name.split("/")[-1]):
        resolve(name)


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_size": 8}))
    with pytest.raises(ModelError, match="vit"):
        load(tmp_path)
