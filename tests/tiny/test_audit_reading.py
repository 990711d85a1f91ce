"""How two folders are read and what is printed of them: little memory, clear refusals, strict JSON."""

import json
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import burnish.artifacts.differences as differences
from audit_example import FLOAT, MLP, WEIGHT, Tensors, altered, audited, write
from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.matching import match, nearest_layers
from burnish.cli.audit import show_audit
from burnish.errors import ModelError, VerificationError, WrongModelError
from burnish.inspecting import audit_folders
from conftest import Folders, Models, random_enhancement


def test_only_changed_projections_are_held_whole(
    tiny_folder: Folders, tiny_model: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_folder("llama")
    out = write(folder, random_enhancement(tiny_model("llama"), [0.5, 0.0, 0.5]), tmp_path / "out")
    tensors = load_file(out / "model.safetensors")
    tensors["model.embed_tokens.weight"] *= 1.5
    save_file(tensors, out / "model.safetensors")
    read: list[str] = []
    read_tensor = Checkpoint.read

    def recorded(checkpoint: Checkpoint, name: str) -> Tensor:
        read.append(name)
        return read_tensor(checkpoint, name)

    monkeypatch.setattr(Checkpoint, "read", recorded)
    monkeypatch.setattr(differences, "BLOCK", 512)
    audit = audited(folder, out)
    assert sorted(read) == sorted([WEIGHT.format(0), WEIGHT.format(2)] * 2)
    assert audit.tensors[0].relative_size == pytest.approx(0.5)


def test_comparing_takes_no_more_memory_than_a_few_blocks(tmp_path: Path) -> None:
    size = 8 * differences.BLOCK // 4  # elements of a tensor of eight blocks
    for name, factor in (("base", 1.0), ("other", 2.0)):
        (tmp_path / name).mkdir()
        save_file(
            {"large": torch.full((1, size), factor), "same": torch.ones(size)}, tmp_path / name / "model.safetensors"
        )
    base, other = Checkpoint(tmp_path / "base"), Checkpoint(tmp_path / "other")
    tracemalloc.start()
    assert differences.differing(base, other) == ["large"]
    measured = differences.measure(base, other, "large")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (measured.relative_size, measured.share) == (pytest.approx(1.0), 1.0)
    assert peak < 6 * differences.BLOCK


def test_other_types_are_counted_in_bytes(tmp_path: Path) -> None:
    for name, last in (("base", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        save_file({"ids": torch.tensor([0, 0, 0, last])}, tmp_path / name / "model.safetensors")
    measured = differences.measure(Checkpoint(tmp_path / "base"), Checkpoint(tmp_path / "other"), "ids")
    assert (measured.relative_size, measured.share) == (None, 1 / 32)


def test_other_tensors_other_shapes_and_one_folder_twice_are_refused(tiny_folder: Folders, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="do not hold the same tensors"):
        audited(tiny_folder("llama"), tiny_folder("mistral", dtype=torch.bfloat16))
    with pytest.raises(ModelError, match="same folder"):
        audited(tiny_folder("llama"), tiny_folder("llama"))
    copy = altered(tiny_folder("llama"), tmp_path / "copy")
    with pytest.raises(WrongModelError, match="made for 5 layers, 32 wide"):
        audit_folders(tiny_folder("llama"), copy, FLOAT, known={"foreign": torch.ones(5, 32)})


def test_damaged_weights_are_refused(tiny_folder: Folders, tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors[WEIGHT.format(1)][0, 0] = float("nan")

    with pytest.raises(ModelError, match=r"layers\.1\.self_attn\.o_proj\.weight' cannot be compared"):
        audited(tiny_folder("llama"), altered(tiny_folder("llama"), tmp_path / "spoilt", spoil))


def test_the_text_names_every_changed_layer_and_the_match(
    tiny_folder: Folders, tiny_model: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = write(tiny_folder("llama"), random_enhancement(tiny_model("llama"), [0.0, 0.5, 1.0]), tmp_path / "out")
    (out / "tokenizer.json").write_text("{}")
    show_audit(*audit_folders(tiny_folder("llama"), out, FLOAT), json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("A directional edit: 1 direction in 2 layers, gains 0.50 to 1.00")
    assert lines[1].startswith("like own record (from the folder itself): |cosine| 1.0000 on average")
    assert lines[2].startswith("layer 1: directional, gain 0.5000, changed by")
    assert lines[2].endswith("|cosine| 1.0000 with own record")
    assert lines[3].startswith("layer 2: directional, gain 1.0000")
    assert lines[4] == "1 of 3 attention output projections are unchanged"
    assert lines[5].startswith("tokenizer.json: changed,")
    assert lines[5].endswith("to 2")


def test_the_json_is_strict_even_where_nothing_can_be_divided_by(
    tiny_folder: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def zero(tensors: Tensors) -> None:
        tensors[MLP] *= 0

    base = altered(tiny_folder("llama"), tmp_path / "base", zero)
    show_audit(*audit_folders(base, altered(tiny_folder("llama"), tmp_path / "other"), FLOAT), json=True)
    stored = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))
    assert stored["kind"] == "elsewhere"
    assert stored["tensors"] == [{"name": MLP, "relative_size": None, "share": 1.0}]
    assert [p["kind"] for p in stored["projections"]] == ["none"] * 3
    assert stored["matches"]["names"] == []


def test_the_layer_that_a_single_direction_came_from_is_found_among_a_names_layers(
    tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    """One layer's direction used in all of them matches that layer of a direction that has one for each."""
    source = random_enhancement(tiny_model("llama"), 0.5).vectors[:, 0]  # [layers, hidden], another in each
    used = random_enhancement(tiny_model("llama"), 0.5)
    used.vectors[:] = source[1]
    audit, matches = audit_folders(tiny_folder("llama"), write(tiny_folder("llama"), used, tmp_path / "out"), FLOAT)
    named = match(audit, nearest_layers(audit, {"source": source, "other": source.flip(1)}))
    assert named.names[0].name == "source, layer 1"
    assert named.names[0].smallest > 0.999
    together = matches.joined(named)
    assert {name.name for name in together.names} == {"own record"} | {name.name for name in named.names}
    assert together.own == ("own record",)
    assert all(layer.cosines[layer.best] > 0.999 for layer in together.layers)
