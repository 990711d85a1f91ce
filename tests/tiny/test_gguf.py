"""The forms for llama.cpp on tiny models: edited files say what the live form does, in every architecture's names."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import MODEL_ARCH_NAMES, GGUFWriter, get_tensor_name_map

from burnish import export
from burnish.cli.app import run
from burnish.cli.run import current_recipe
from burnish.errors import InputError
from burnish.model.gguf_plan import GgufPlan
from burnish.model.live import norm_weight
from burnish.model.model import Model
from burnish.options import ModelOptions
from conftest import Folders, Models, random_enhancement
from families import GGUF
from gguf_files import values, write_control_vector

FLOAT = ModelOptions(dtype="float32")


def attention_file(model: Model, family: str, path: Path) -> Path:
    """The tensors that an edit of the model concerns, named and turned as llama.cpp's converter does."""
    architecture = GGUF[family]
    number = next(n for n, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(number, model.anatomy.layers)
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(model.anatomy.layers)
    writer.add_embedding_length(model.anatomy.hidden_size)
    for projection in model.anatomy.attention():
        module: Any = model.network.get_submodule(projection.path)
        weight = module.weight.float() if projection.layout == "out_in" else module.weight.float().T
        writer.add_tensor(f"{names.get_name(projection.path)}.weight", weight.contiguous().numpy())
        if projection.bias:
            writer.add_tensor(f"{names.get_name(projection.path)}.bias", module.bias.float().numpy())
        if projection.post_norm:
            scale = norm_weight(model.network.get_submodule(projection.post_norm), model.anatomy.hidden_size)
            writer.add_tensor(f"{names.get_name(projection.post_norm)}.weight", scale.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("family", GGUF)
def test_the_edited_file_does_what_the_live_form_does(family: str, tiny_model: Models, tmp_path: Path) -> None:
    model = tiny_model(family, own=True)
    enhancement = random_enhancement(model, 0.8, rank=2)
    source = attention_file(model, family, tmp_path / "a.gguf")
    ids = torch.arange(3, 24)[None]

    @torch.inference_mode()
    def logits() -> torch.Tensor:
        return model.network(input_ids=ids).logits  # type: ignore[no-any-return]

    base = logits()
    with model.enhanced(enhancement):
        live = logits()
    plan = GgufPlan.open(source, enhancement)
    export(enhancement, tmp_path / "b.gguf", form="gguf", model=source)
    for item in plan.edits:
        module: Any = model.network.get_submodule(item.projection.path)
        stored = values(tmp_path / "b.gguf", item.tensor.name)
        with torch.no_grad():
            if item.is_bias:
                module.bias.copy_(stored)
            else:
                module.weight.copy_(stored if item.projection.layout == "out_in" else stored.T)
    torch.testing.assert_close(logits(), live, rtol=1e-3, atol=1e-4)
    assert (live - base).abs().max() > 1e-3


def test_the_command_edits_a_file_without_converting_it(
    tiny_model: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from burnish.model import packaged

    monkeypatch.setattr(packaged, "converted_gguf", lambda _: pytest.fail("the file was converted"))
    model = tiny_model("llama")
    source = attention_file(model, "llama", tmp_path / "a.gguf")
    plan = random_enhancement(model, 0.25).save(tmp_path / "plan.safetensors")
    out = tmp_path / "b.gguf"
    arguments = ["apply", str(source), str(plan), "-o", str(out), "--enhancement-factor", "2", "--json"]
    assert run([*arguments, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert not out.exists()
    assert run(arguments) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["form"] == planned["form"] == "gguf"
    assert written["bytes"] == planned["bytes"] == out.stat().st_size
    assert [gain["realised"] for gain in written["gains"]] == [[pytest.approx(0.5, rel=1e-3)]] * 3
    assert any("cannot be told from the file" in note for note in written["notes"])
    assert run(arguments) == 5
    assert run(["apply", str(out), str(plan), "-o", str(tmp_path / "c.gguf")]) == 3
    assert "already enhanced" in capsys.readouterr().err


def test_a_file_output_needs_a_file_for_a_model(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    plan = random_enhancement(tiny_model("llama"), 0.25)
    with pytest.raises(InputError, match="only one can be edited into another"):
        export(plan, tmp_path / "b.gguf", model=tiny_folder("llama"), options=FLOAT)


def test_python_export_equals_the_command(tiny_model: Models, tmp_path: Path) -> None:
    model = tiny_model("llama")
    source = attention_file(model, "llama", tmp_path / "a.gguf")
    plan = random_enhancement(model, 0.25)
    plan.save(tmp_path / "plan.safetensors")
    assert run(["apply", str(source), str(tmp_path / "plan.safetensors"), "-o", str(tmp_path / "two.gguf")]) == 0
    export(plan, tmp_path / "one.gguf", model=source, recipe=current_recipe())
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


def test_a_control_vector_of_repeng_is_applied_with_a_factor(
    tiny_folder: Folders, tiny_model: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, folder = tiny_model("llama"), str(tiny_folder("llama"))
    vectors = torch.randn(3, model.anatomy.hidden_size)
    write_control_vector(tmp_path / "vector.gguf", vectors)
    arguments = ["apply", folder, str(tmp_path / "vector.gguf"), "-o", str(tmp_path / "out")]
    assert run([*arguments, "--enhancement-factor", "0.5"]) == 0
    capsys.readouterr()
    assert run(["verify", folder, str(tmp_path / "out"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [layer["layer"] for layer in result["edited"]] == [1, 2]
    assert [layer["gains"][0] for layer in result["edited"]] == pytest.approx([0.5, 0.5], abs=1e-3)
