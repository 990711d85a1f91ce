"""Live, baked and adapter are the same edit, in every architecture family."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.direction import Enhancement
from burnish.artifacts.files import stored_size
from burnish.errors import InputError
from burnish.forms import form_of
from burnish.inspecting import verify_folders
from burnish.model.live import norm_weight
from burnish.model.model import Model, load
from burnish.options import FORMS, ModelOptions, OutputOptions
from burnish.pipeline import apply, export, open_plan, write_plan
from conftest import Folders, Models, random_enhancement
from families import EVERY, FAMILIES, MOST
from gguf_files import enhancement as gguf_enhancement
from gguf_files import write_model

FLOAT = ModelOptions(dtype="float32")
TOKENS = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def logits(network: Any) -> torch.Tensor:
    return network(input_ids=TOKENS, use_cache=False).logits


def write(folder: Path, enhancement: Enhancement, out: Path, form: str = "model") -> Path:
    output = OutputOptions(out=out, form=form)  # type: ignore[arg-type]
    return apply(open_plan(folder, FLOAT), enhancement, output, name=str(folder)).out


@torch.inference_mode()
def projection_outputs(model: Model, layer: int) -> torch.Tensor:
    """What the first projection of a layer writes (before any norm)."""
    projection = next(p for p in model.anatomy.attention() if p.layer == layer)
    outputs: list[torch.Tensor] = []
    handle = model.network.get_submodule(projection.path).register_forward_hook(
        lambda module, arguments, output: outputs.append(output.detach().clone())
    )
    logits(model.network)
    handle.remove()
    return outputs[0].reshape(-1, outputs[0].shape[-1]).double()


def first_layer(model: Model) -> int:
    return model.anatomy.attention()[0].layer


@EVERY
def test_every_projection_is_found(family: str, tiny_model: Models) -> None:
    anatomy = tiny_model(family).anatomy
    assert len(anatomy.attention()) == FAMILIES[family].projections
    assert anatomy.layers == FAMILIES[family].layers
    covered = {p.layer for p in anatomy.attention()}
    assert ("left alone" in anatomy.coverage()) == (len(covered) < anatomy.layers)


@EVERY
def test_live_gain_is_one_plus_factor_and_the_complement_is_untouched(family: str, tiny_model: Models) -> None:
    model = tiny_model(family)
    layer = first_layer(model)
    gains = [0.0] * model.anatomy.layers
    gains[layer] = 1.5
    enhancement = random_enhancement(model, gains)
    projection = next(p for p in model.anatomy.attention() if p.layer == layer)
    scale = torch.ones(model.anatomy.hidden_size, dtype=torch.float64)
    if projection.post_norm:
        scale = norm_weight(model.network.get_submodule(projection.post_norm), model.anatomy.hidden_size)
    before = projection_outputs(model, layer) * scale
    with model.enhanced(enhancement):
        # The recording hook is registered after the edit's and therefore sees the edited output.
        after = projection_outputs(model, layer) * scale
    v = enhancement.vectors[layer, 0].double()
    torch.testing.assert_close(after @ v, 2.5 * (before @ v), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        after - torch.outer(after @ v, v), before - torch.outer(before @ v, v), rtol=1e-4, atol=1e-5
    )


@EVERY
def test_live_equals_baked_equals_adapter(
    family: str, tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    assert_forms_agree(family, random_enhancement(tiny_model(family), 1.5, rank=2), tiny_folder, tiny_model, tmp_path)


@MOST
def test_learnt_directions_which_strengthen_and_weaken_are_the_same_live_baked_and_as_adapter(
    family: str, tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    enhancement = random_enhancement(tiny_model(family), 0.0, rank=4)
    orthonormal = torch.linalg.qr(enhancement.vectors.mT).Q.mT.contiguous()
    gains = torch.tensor([0.7, 0.2, -0.4, -0.9]).expand(len(orthonormal), -1).contiguous()
    learnt = replace(enhancement, vectors=orthonormal, gains=gains)
    assert_forms_agree(family, learnt, tiny_folder, tiny_model, tmp_path)


def assert_forms_agree(
    family: str, enhancement: Enhancement, tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    from peft import PeftModel

    model = tiny_model(family)
    base = logits(model.network)
    with model.enhanced(enhancement):
        live = logits(model.network)
    torch.testing.assert_close(logits(model.network), base, rtol=0, atol=0)
    assert (live - base).abs().max() > 1e-3
    baked = load(write(tiny_folder(family), enhancement, tmp_path / "model"), FLOAT)
    torch.testing.assert_close(logits(baked.network), live, rtol=1e-3, atol=2e-4)
    adapter = write(tiny_folder(family), enhancement, tmp_path / "adapter", "adapter")
    adapted = PeftModel.from_pretrained(tiny_model(family, own=True).network, adapter)
    torch.testing.assert_close(logits(adapted), live, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_writes_what_it_says_of_itself(
    name: str, tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    form = form_of(name)
    assert form.name == name
    assert form.help
    assert form.folder == (form.marker is not None)
    source, plan = tiny_folder("llama"), random_enhancement(tiny_model("llama"), 0.5)
    if not form.converts:
        source, plan = write_model(tmp_path / "a.gguf"), gguf_enhancement()
    output = OutputOptions(out=tmp_path / "out", form=name)
    opened = open_plan(source, FLOAT, enhancement=plan, form=name)
    planned = write_plan(opened, output, [], enhancement=plan, name=str(source))
    applied = export(plan, tmp_path / "out", form=name, model=source)
    assert (applied.form, planned.layers) == (name, plan.edited_layers())
    assert planned.bytes == pytest.approx(applied.bytes, rel=0.25)
    assert applied.bytes == stored_size(applied.out)
    assert applied.out.is_dir() == form.folder
    if form.marker is not None:
        assert (applied.out / form.marker).is_file()
    if stored := form.plan_file(applied.out):
        assert torch.equal(Enhancement.load(stored).gains, plan.gains)
    if form.beside:
        with pytest.raises(InputError, match="Every gain is zero"):
            export(plan.scaled(0), tmp_path / "none", form=name, model=source)


@MOST
def test_factor_zero_changes_no_byte(family: str, tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    out = write(tiny_folder(family), random_enhancement(tiny_model(family), 0.0), tmp_path / "out")
    for path in tiny_folder(family).iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name


@MOST
def test_verify_recovers_the_gain_and_finds_nothing_else(
    family: str, tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    model = tiny_model(family)
    out = write(tiny_folder(family), random_enhancement(model, 0.4), tmp_path / "out")
    verification = verify_folders(tiny_folder(family), out, FLOAT)
    assert verification.clean
    assert len(verification.edited) == FAMILIES[family].projections
    for layer in verification.edited:
        assert layer.gains == pytest.approx([0.4], abs=1e-3)
        assert layer.unexplained < 1e-3


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "kanana", "llama-biased"])
def test_gain_survives_bfloat16_at_two_hundredths(
    family: str, tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    folder = tiny_folder(family, dtype=torch.bfloat16)
    model = load(folder, FLOAT)
    plan = open_plan(folder, FLOAT)
    done = apply(plan, random_enhancement(model, 0.02), OutputOptions(out=tmp_path / "out"), name="tiny")
    for gain in done.gains:
        assert gain.realised == pytest.approx([0.02], rel=0.1)


@pytest.mark.parametrize("family", ["llama", "gpt2", "kanana"])
def test_undo_restores_the_weights(family: str, tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    model = tiny_model(family)
    out = write(tiny_folder(family), random_enhancement(model, 1.5), tmp_path / "out")
    enhanced = load(out, FLOAT)
    undone = apply(
        open_plan(out, FLOAT, again=True),
        random_enhancement(enhanced, -1.5 / 2.5),
        OutputOptions(out=tmp_path / "undone"),
        name="tiny",
    ).out
    before = load_file(tiny_folder(family) / "model.safetensors")
    after = load_file(undone / "model.safetensors")
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-4, atol=1e-6)


def test_sharded_equals_single(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    sharded = tiny_folder("llama", shard="20KB")
    assert (sharded / "model.safetensors.index.json").exists()
    one = write(tiny_folder("llama"), random_enhancement(tiny_model("llama"), 0.7), tmp_path / "one")
    many = write(sharded, random_enhancement(load(sharded, FLOAT), 0.7), tmp_path / "many")
    single, parts = Checkpoint(one), Checkpoint(many)
    assert list(single.tensors) == list(parts.tensors)
    assert all(torch.equal(single.read(name), parts.read(name)) for name in single.tensors)
