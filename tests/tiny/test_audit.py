"""Two folders say what was done to a model: our own edits exactly, and anything else for what it is."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from audit_example import EVERY, FLOAT, MLP, TYPES, WEIGHT, Tensors, altered, audited, noise, write
from burnish.artifacts.checkpoint import Checkpoint
from burnish.inspecting import audit_folders, known_vectors
from burnish.model.model import load
from conftest import Folders, Models, random_enhancement


@EVERY
@TYPES
def test_directions_and_gains_of_every_layer_are_recovered(
    family: str, dtype: torch.dtype, tiny_folder: Folders, tmp_path: Path
) -> None:
    folder = tiny_folder(family, dtype=dtype)
    model = load(folder, FLOAT)
    gains = [0.5 + 0.4 * layer for layer in range(model.anatomy.layers)]
    enhancement = random_enhancement(model, gains, rank=2)
    enhancement.gains[:, 1] = 0.3
    audit, matches = audit_folders(folder, write(folder, enhancement, tmp_path / "out"), FLOAT)
    assert audit.kind == "directional"
    assert not audit.tensors
    assert not audit.files
    assert [entry.layer for entry in audit.projections] == list(range(model.anatomy.layers))
    for entry in audit.projections:
        assert entry.change.gains == pytest.approx([gains[entry.layer], 0.3], rel=0.01)
        assert entry.bias_follows in (None, True)
    assert {*matches.own} == {name.name for name in matches.names}
    assert len(matches.own) == 2
    assert all(name.smallest > 0.999 for name in matches.names)


def test_equal_gains_are_matched_by_their_span(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    out = write(tiny_folder("llama"), random_enhancement(tiny_model("llama"), 0.5, rank=3), tmp_path / "out")
    audit, matches = audit_folders(tiny_folder("llama"), out, FLOAT)
    assert all(entry.change.gains == pytest.approx([0.5] * 3, rel=0.01) for entry in audit.projections)
    assert all(name.smallest > 0.999 for name in matches.names)


def test_a_direction_held_still_is_taken_from_the_folders_record(
    tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    enhancement = random_enhancement(tiny_model("kanana"), 0.8, rank=2)
    enhancement.vectors[:, 1] = torch.nn.functional.normalize(enhancement.vectors.sum(1), dim=-1)
    enhancement.gains[:, 1] = 0.0
    out = write(tiny_folder("kanana"), enhancement, tmp_path / "out")
    audit = audited(tiny_folder("kanana"), out)
    assert all(entry.change.held for entry in audit.projections)
    assert all(entry.change.gains == pytest.approx([0.8], rel=0.01) for entry in audit.projections)
    shutil.rmtree(out / "burnish")
    assert audited(tiny_folder("kanana"), out).kind == "low-rank"


def test_layers_without_a_gain_are_unchanged(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    out = write(tiny_folder("llama"), random_enhancement(tiny_model("llama"), [0.0, 0.7, 0.0]), tmp_path / "out")
    audit = audited(tiny_folder("llama"), out)
    assert [entry.change.kind for entry in audit.projections] == ["none", "directional", "none"]
    assert audit.summary == "a directional edit: 1 direction in 1 layer, gain 0.70"


def test_one_direction_in_all_layers_is_called_the_same(
    tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    enhancement = random_enhancement(tiny_model("llama"), [0.2, 0.5, 1.5])
    assert (
        "not the same"
        in audited(tiny_folder("llama"), write(tiny_folder("llama"), enhancement, tmp_path / "own")).summary
    )
    enhancement.vectors[:] = enhancement.vectors[:1].clone()
    audit = audited(tiny_folder("llama"), write(tiny_folder("llama"), enhancement, tmp_path / "same"))
    assert audit.agreement == pytest.approx(1.0, abs=1e-4)
    assert audit.summary.startswith("a directional edit: 1 direction in 3 layers, gains 0.20 to 1.50, the same in all")


@pytest.mark.parametrize(("base", "copy"), [("20KB", "20KB"), ("20KB", "5GB"), ("5GB", "20KB"), ("40KB", "20KB")])
def test_shards_make_no_difference(
    base: str, copy: str, tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    out = write(tiny_folder("llama", shard=copy), random_enhancement(tiny_model("llama"), 0.5), tmp_path / "out")
    audit = audited(tiny_folder("llama", shard=base), out)
    assert (audit.kind, audit.tensors, audit.files) == ("directional", (), ())
    assert audit.identical == len(Checkpoint(out).tensors) - 3


def test_a_copy_is_identical(tiny_folder: Folders, tmp_path: Path) -> None:
    audit, matches = audit_folders(tiny_folder("llama"), altered(tiny_folder("llama"), tmp_path / "out"), FLOAT)
    assert audit.kind == "identical"
    assert audit.summary.startswith("identical")
    assert not matches.layers
    assert not matches.names


@TYPES
def test_a_fine_tune_is_not_a_low_rank_edit(dtype: torch.dtype, tiny_folder: Folders, tmp_path: Path) -> None:
    def tune(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            tensor += (0.1 * tensor.float().std() * noise(tensor, len(name))).to(tensor.dtype)

    folder = tiny_folder("llama", dtype=dtype)
    audit = audited(folder, altered(folder, tmp_path / "out", tune))
    assert audit.kind == "dense"
    assert re.match(
        r"not a low-rank edit: 3 projections changed in more than 8 dimensions, the most by \d", audit.summary
    )
    assert len(audit.tensors) == len(Checkpoint(folder).tensors) - 3


def test_a_fine_tune_that_shows_in_few_dimensions_of_some_layers_is_no_low_rank_edit(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    def tune(tensors: Tensors) -> None:
        for layer, rank in enumerate((64, 2, 3)):
            weight = tensors[WEIGHT.format(layer)]
            weight += 0.01 * noise(weight[:, :rank], layer) @ noise(weight[:rank], layer + 9)

    audit = audited(tiny_folder("llama"), altered(tiny_folder("llama"), tmp_path / "out", tune))
    assert audit.kind == "dense"
    assert audit.summary.startswith("not a low-rank edit: 1 projection changed in more than")
    assert audit.summary.endswith("and 2 projections in fewer")


def test_an_edit_beside_a_fine_tune_is_mixed(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    def tune(tensors: Tensors) -> None:
        tensors[WEIGHT.format(2)] += 0.01 * noise(tensors[WEIGHT.format(2)])

    out = write(tiny_folder("llama"), random_enhancement(tiny_model("llama"), 0.5), tmp_path / "out")
    audit = audited(tiny_folder("llama"), altered(out, tmp_path / "tuned", tune))
    assert audit.kind == "mixed"
    assert audit.summary == "a mixed change: 1 projection dense, 2 projections directional"


def test_what_an_edit_leaves_beyond_rounding_is_said(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    def disturb(tensors: Tensors) -> None:
        before = load_file(tiny_folder("llama") / "model.safetensors")[WEIGHT.format(1)]
        edit = tensors[WEIGHT.format(1)] - before
        disturbance = noise(before)
        tensors[WEIGHT.format(1)] += 0.05 * disturbance * edit.norm() / disturbance.norm()

    out = write(tiny_folder("llama"), random_enhancement(tiny_model("llama"), 0.5), tmp_path / "out")
    audit = audited(tiny_folder("llama"), altered(out, tmp_path / "disturbed", disturb))
    assert audit.kind == "directional"
    assert audit.projections[1].change.residual == pytest.approx(0.05**2, rel=0.2)
    assert audit.summary.endswith("; in 1 projection more is left than rounding explains")


def test_what_changed_elsewhere_is_named_with_its_size(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = tiny_folder("llama")

    def change(tensors: Tensors) -> None:
        tensors[MLP] *= 1.25

    out = altered(folder, tmp_path / "out", change)
    (out / "tokenizer_config.json").write_text("{}")
    (out / "new.bin").write_bytes(b"12345")
    (out / "generation_config.json").unlink()
    audit = audited(folder, out)
    (tensor,) = audit.tensors
    assert (tensor.name, tensor.share) == (MLP, 1.0)
    assert tensor.relative_size == pytest.approx(0.25)
    assert {file.name: (file.before, file.after) for file in audit.files} == {
        "tokenizer_config.json": ((folder / "tokenizer_config.json").stat().st_size, 2),
        "new.bin": (None, 5),
        "generation_config.json": ((folder / "generation_config.json").stat().st_size, None),
    }
    assert audit.summary == (
        "no attention output projection changed; also changed: 1 other tensor (the most by 25.00% of its size) and 3 files"
    )


def test_a_bias_that_does_not_follow_is_named(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    def shift(tensors: Tensors) -> None:
        tensors["model.layers.1.self_attn.o_proj.bias"] += 1.0

    out = write(tiny_folder("llama-biased"), random_enhancement(tiny_model("llama-biased"), 0.5), tmp_path / "out")
    audit = audited(tiny_folder("llama-biased"), altered(out, tmp_path / "shifted", shift))
    assert [entry.bias_follows for entry in audit.projections] == [True, False, True]
    assert [tensor.name for tensor in audit.tensors] == ["model.layers.1.self_attn.o_proj.bias"]
    assert "in 1 projection the bias does not follow the weight" in audit.summary


def test_the_known_direction_that_was_used_is_the_best_match(
    tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    model = tiny_model("llama")
    used, other = random_enhancement(model, 0.5), random_enhancement(model, 0.5, seed=1)
    files = [e.save(tmp_path / f"{name}.safetensors") for name, e in (("used", used), ("other", other))]
    out = write(tiny_folder("llama"), used, tmp_path / "out")
    shutil.rmtree(out / "burnish")
    known = {**known_vectors(files[1]), **known_vectors(files[0])}
    matches = audit_folders(tiny_folder("llama"), out, FLOAT, known=known)[1]
    assert matches.own == ()
    assert [(name.name, name.best_in) for name in matches.names] == [("used", 3), ("other", 0)]
    assert matches.names[0].smallest > 0.999
    assert matches.names[1].mean < 0.9
    assert {layer.best for layer in matches.layers} == {"used"}
