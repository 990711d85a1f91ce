"""What is loaded is what is edited: folders that hold more, less or other than the config says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from burnish.cli.app import run
from burnish.errors import BurnishWarning, ModelError
from burnish.model.layerwise import load_layered
from burnish.model.model import Model, load
from burnish.model.source import resolve
from burnish.options import ModelOptions, OutputOptions
from burnish.pipeline import apply, open_plan, write_plan
from conftest import Folders, random_adapter, random_enhancement

FLOAT = ModelOptions(dtype="float32")
IDS = torch.tensor([[1, 50, 60, 70, 80]])


@pytest.fixture
def folder(tiny_folder: Folders, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


def rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Path:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def require_same(folder: Path, out: Path) -> None:
    """The model that is written, as the library loads it, is the live one, which is another than the base."""
    model = load(folder, FLOAT)
    enhancement = random_enhancement(model, 0.5)
    apply(open_plan(folder, FLOAT), enhancement, OutputOptions(out=out), name="x")
    with model.enhanced(enhancement):
        live = logits(model)
    assert (live - logits(model)).abs().max() > 1e-3
    with torch.no_grad():
        written = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)(IDS).logits
    assert torch.allclose(written, live, atol=1e-4)


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.network(IDS).logits
    return logits


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tensors: {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}, "_orig_mod"),
        (lambda tensors: {name: t for name, t in tensors.items() if "o_proj" not in name}, "o_proj"),
        (lambda tensors: {name: t for name, t in tensors.items() if "layers.2" not in name}, r"layers\.2"),
        (
            lambda tensors: {name: t[:16] if "1.self_attn.o_proj" in name else t for name, t in tensors.items()},
            "another shape.*o_proj",
        ),
    ],
)
def test_a_checkpoint_that_lacks_tensors_is_refused_by_their_names(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], named: str
) -> None:
    with pytest.raises(ModelError, match=f"lacks.*{named}"):
        load(rewritten(folder, change), FLOAT)


def test_a_tensor_under_two_names_is_refused(folder: Path) -> None:
    """With and without the model's prefix: the library loads one of them."""
    rewritten(folder, lambda tensors: {**tensors, **{n.removeprefix("model."): t + 1 for n, t in tensors.items()}})
    for opened in (load, load_layered):
        with pytest.raises(ModelError, match=r"stores 'model\..* twice"):
            opened(folder, FLOAT)


def test_a_checkpoint_of_the_bare_model_is_loaded_and_edited(folder: Path, tmp_path: Path) -> None:
    """Without the prefix that the whole model's tensors have."""
    rewritten(folder, lambda tensors: {name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    require_same(folder, tmp_path / "out")


def test_a_pointer_of_git_lfs_is_told_from_damage(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ModelError, match="pointer of Git LFS"):
        load(folder, FLOAT)


def test_tensors_that_the_config_knows_nothing_of_are_said(folder: Path) -> None:
    rewritten(folder, lambda tensors: {**tensors, "model.layers.0.self_attn.o_proj.bias": torch.ones(32)})
    with pytest.warns(BurnishWarning, match=r"1 tensors.*o_proj\.bias"):
        load(folder, FLOAT)


def test_an_adapter_is_refused_as_what_it_is(folder: Path, tmp_path: Path) -> None:
    random_adapter(load(folder, FLOAT), tmp_path / "adapter", target_modules=["o_proj"])
    with pytest.raises(ModelError, match=r"is an adapter \(adapter_config\.json\).*Pass the model"):
        resolve(tmp_path / "adapter")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(tmp_path / "adapter" / file, folder)
    with pytest.raises(ModelError, match=r"holds an adapter \(adapter_config\.json\) beside"):
        resolve(folder)


@pytest.mark.parametrize("layout", ["single", "shards", "named"])
def test_the_written_model_as_loaded_is_the_live_one_in_every_layout(
    layout: str, tiny_folder: Folders, tmp_path: Path
) -> None:
    source = tiny_folder("llama", shard="20KB" if layout == "shards" else "5GB")
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    if layout == "named":
        rewritten(Path(shutil.copytree(folder, tmp_path / "other")), lambda t: {n: 2 * x for n, x in t.items()})
        shutil.copy(tmp_path / "other" / "model.safetensors", folder / "second.safetensors")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "second.safetensors"}))
    require_same(folder, tmp_path / "out")


def test_weights_in_other_forms_stay_behind_and_that_is_said(folder: Path, tmp_path: Path) -> None:
    (folder / "original").mkdir()
    for name in ("original/consolidated.00.pth", "pytorch_model.bin", "optimizer.pt"):
        (folder / name).write_bytes(bytes(300_000))
    plan = open_plan(folder, FLOAT)
    output = OutputOptions(out=tmp_path / "out")
    planned = write_plan(plan, output, [0, 1, 2])
    applied = apply(plan, random_enhancement(load(folder, FLOAT), 0.5), output, name="x")
    assert "original/consolidated.00.pth, pytorch_model.bin" in applied.notes[0]
    assert not (output.out / "original").exists()
    assert (output.out / "optimizer.pt").exists()
    written = sum(p.stat().st_size for p in output.out.rglob("*") if p.is_file())
    assert planned.bytes == pytest.approx(written, rel=0.05)
    assert applied.bytes == written
    assert run(["verify", str(folder), str(output.out)]) == 0
