"""Writing: the source is never touched, a killed run is resumed, and what cannot be edited is refused."""

import json
from pathlib import Path

import pytest
import torch

import burnish.artifacts.bake as baking
from burnish.artifacts.copying import JOURNAL
from burnish.errors import DiskFullError, OutputError
from burnish.forms.base import Applied
from burnish.model.live import norm_weight
from burnish.model.model import load
from burnish.model.weights import network_layers
from burnish.options import ModelOptions, OutputOptions
from burnish.pipeline import apply, export, open_plan
from conftest import Folders, Models, contents, random_enhancement
from quantised import Packed

FLOAT = ModelOptions(dtype="float32")


def bake(folder: Path, out: Path, factor: float = 0.5, **options: object) -> Applied:
    enhancement = random_enhancement(load(folder, FLOAT), factor)
    return apply(open_plan(folder, FLOAT), enhancement, OutputOptions(out=out, **options), name=str(folder))  # type: ignore[arg-type]


def test_every_other_file_is_kept_and_the_source_untouched(tiny_folder: Folders, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, data in contents(tiny_folder("llama")).items():
        (source / name).write_bytes(data)
    for name in ("LICENSE", "modeling_own.py", "extra/head.bin"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(name)
    before = contents(source)
    out = bake(source, tmp_path / "out").out
    assert contents(source) == before
    after = contents(out)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"model.safetensors"}
    assert set(after) - set(before) == {"README.md", "burnish.json", "burnish/enhancement.safetensors"}


def test_the_record_says_what_was_done(tiny_folder: Folders, tmp_path: Path) -> None:
    out = bake(tiny_folder("llama"), tmp_path / "out").out
    mark = json.loads((out / "burnish.json").read_text())
    assert mark["gains_asked"] == [[0.5]] * 3
    assert len(mark["sha256"]) == 3
    assert all(gain["realised"] == pytest.approx([0.5], abs=1e-4) for gain in mark["gains"])
    card = (out / "README.md").read_text()
    assert card.startswith("---\nbase_model:")
    for words in ("## Recipe", "## Measured", "## Undo", "3 of 3"):
        assert words in card


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_is_resumed_to_the_same_bytes(
    interruption: type[BaseException], tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_folder("llama", dtype=torch.bfloat16, shard="20KB")
    complete = contents(bake(folder, tmp_path / "whole").out)
    edit, edited, most = baking._edit, [], 1

    def counted(source: object, item: baking.TensorEdit, copying: object) -> object:
        if len(edited) == most:
            raise interruption
        edited.append(item.name)
        return edit(source, item, copying)  # type: ignore[arg-type]

    monkeypatch.setattr(baking, "_edit", counted)
    with pytest.raises(interruption):
        bake(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial" / JOURNAL).exists()
    most = 3
    assert contents(bake(folder, tmp_path / "out").out) == complete
    assert len(edited) == len(set(edited)) == 3
    assert not (tmp_path / "out.partial").exists()


def test_a_partial_output_of_another_recipe_is_thrown_away(
    tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_folder("llama")
    complete = contents(bake(folder, tmp_path / "whole", 0.25).out)
    with monkeypatch.context() as patch:
        patch.setattr(baking, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            bake(folder, tmp_path / "out", 0.9)
    assert contents(bake(folder, tmp_path / "out", 0.25).out) == complete


@pytest.mark.parametrize("what", ["bake._overwrite", "copying.copy_file"])
def test_an_error_while_writing_leaves_nothing(
    what: str, tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"burnish.artifacts.{what}", full)
    with pytest.raises(DiskFullError, match="filled up"):
        bake(tiny_folder("llama"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["", "inside", ".."])
def test_the_models_own_folder_is_never_an_output(where: str, tiny_folder: Folders, tmp_path: Path) -> None:
    folder = tiny_folder("llama")
    before = contents(folder)
    with pytest.raises(OutputError, match="model's own folder"):
        bake(folder, folder / where, overwrite=True)
    assert contents(folder) == before


def test_python_export_equals_the_pipeline(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    one = bake(tiny_folder("llama"), tmp_path / "one").out
    export(random_enhancement(tiny_model("llama"), 0.5), tmp_path / "two", options=FLOAT)
    assert contents(tmp_path / "two") == contents(one)


@pytest.mark.parametrize("family", ["kanana", "llama-biased", "gemma2"])
def test_a_quantised_model_is_found_edited_live_and_given_an_adapter(family: str, tiny_model: Models) -> None:
    from burnish.model.live import layer_edits
    from burnish.model.skeleton import anatomy_of

    model = tiny_model(family, own=True)
    enhancement = random_enhancement(model, 0.8)
    for layer in model.network.model.layers:
        layer.self_attn.o_proj = Packed(layer.self_attn.o_proj)
    anatomy = anatomy_of(model.network, model.network.config)
    assert anatomy.projections == model.anatomy.projections

    def scale_of(path: str) -> torch.Tensor:
        return norm_weight(model.network.get_submodule(path), anatomy.hidden_size)

    x = torch.randn(5, anatomy.projections[0].inputs)
    for layer in network_layers(model.network, layer_edits(anatomy, enhancement, scale_of)):
        module = model.network.get_submodule(layer.projection.path)
        base = module(x)
        with model.enhanced(enhancement):
            live = module(x)
        unbiased = base - (0 if module.bias is None else module.bias)
        adapted = unbiased + x @ layer.a.T @ layer.b.T + (0 if layer.bias is None else layer.bias)
        torch.testing.assert_close(adapted, live, rtol=1e-4, atol=1e-5)
        assert (live - base).abs().max() > 1e-3
