"""Two folders say what was done to a model: our own edits exactly, and anything else for what it is."""

import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import burnish.artifacts.differences as differences
from burnish.artifacts.audit import Audit
from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.direction import Enhancement
from burnish.artifacts.matching import match, nearest_layers
from burnish.cli.audit import show_audit
from burnish.errors import ModelError, QuantisedModelError, VerificationError, WrongModelError
from burnish.model.model import Model, load
from burnish.options import ModelOptions, OutputOptions
from burnish.pipeline import apply, audit_folders, known_vectors, open_plan, verify_folders
from conftest import Folders, random_enhancement

FLOAT = ModelOptions(dtype="float32")
EVERY = pytest.mark.parametrize(
    "family", ["llama", "llama-biased", "kanana", "qwen3-non-square", "gpt2", "gemma2", "olmo2"]
)
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
WEIGHT = "model.layers.{}.self_attn.o_proj.weight"
MLP = "model.layers.1.mlp.down_proj.weight"
Tensors = dict[str, Tensor]
Models = Callable[..., Model]


def write(folder: Path, enhancement: Enhancement, out: Path) -> Path:
    return apply(open_plan(folder, FLOAT), enhancement, OutputOptions(out=out), name=str(folder)).out


def altered(folder: Path, out: Path, change: Callable[[Tensors], None] = lambda tensors: None) -> Path:
    """A copy of a folder with a single weight file, some of whose tensors are changed."""
    shutil.copytree(folder, out)
    tensors = load_file(out / "model.safetensors")
    change(tensors)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def audited(base: Path, other: Path) -> Audit:
    return audit_folders(base, other, FLOAT)[0]


def noise(like: Tensor, seed: int = 0) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


@EVERY
@TYPES
def test_direction_and_gain_of_every_layer_are_recovered(
    family: str, dtype: torch.dtype, tiny_folder: Folders, tmp_path: Path
) -> None:
    folder = tiny_folder(family, dtype=dtype)
    model = load(folder, FLOAT)
    gains = [0.5 + 0.4 * layer for layer in range(model.anatomy.layers)]
    found, matches = audit_folders(folder, write(folder, random_enhancement(model, gains), tmp_path / "out"), FLOAT)
    assert found.kind == "directional"
    assert not found.tensors
    assert not found.files
    assert [entry.layer for entry in found.projections] == list(range(model.anatomy.layers))
    for entry in found.projections:
        assert entry.change.gains == pytest.approx([gains[entry.layer]], rel=0.01)
        assert entry.bias_follows in (None, True)
    assert matches.own == ("own record",)
    assert matches.names[0].smallest > 0.999


@EVERY
def test_directions_that_are_not_orthogonal_are_told_apart(
    family: str, tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    enhancement = random_enhancement(tiny_model(family), 0.8, rank=2)
    enhancement.gains[:, 1] = 0.3
    found, matches = audit_folders(
        tiny_folder(family), write(tiny_folder(family), enhancement, tmp_path / "out"), FLOAT
    )
    assert found.kind == "directional"
    assert all(entry.change.gains == pytest.approx([0.8, 0.3], rel=0.01) for entry in found.projections)
    assert len(matches.names) == 2
    assert all(name.smallest > 0.999 for name in matches.names)


def test_equal_gains_are_matched_by_their_span(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    out = write(tiny_folder("llama"), random_enhancement(tiny_model("llama"), 0.5, rank=3), tmp_path / "out")
    found, matches = audit_folders(tiny_folder("llama"), out, FLOAT)
    assert all(entry.change.gains == pytest.approx([0.5] * 3, rel=0.01) for entry in found.projections)
    assert all(name.smallest > 0.999 for name in matches.names)


def test_a_direction_held_still_is_taken_from_the_folders_record(
    tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    enhancement = random_enhancement(tiny_model("kanana"), 0.8, rank=2)
    enhancement.vectors[:, 1] = torch.nn.functional.normalize(enhancement.vectors.sum(1), dim=-1)
    enhancement.gains[:, 1] = 0.0
    out = write(tiny_folder("kanana"), enhancement, tmp_path / "out")
    found = audited(tiny_folder("kanana"), out)
    assert all(entry.change.held for entry in found.projections)
    assert all(entry.change.gains == pytest.approx([0.8], rel=0.01) for entry in found.projections)
    shutil.rmtree(out / "burnish")
    assert audited(tiny_folder("kanana"), out).kind == "low-rank"


def test_layers_without_a_gain_are_unchanged(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    out = write(tiny_folder("llama"), random_enhancement(tiny_model("llama"), [0.0, 0.7, 0.0]), tmp_path / "out")
    found = audited(tiny_folder("llama"), out)
    assert [entry.change.kind for entry in found.projections] == ["none", "directional", "none"]
    assert found.summary == "a directional edit: 1 direction in 1 layer, gain 0.70"


def test_one_direction_in_all_layers_is_called_the_same(
    tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    own = random_enhancement(tiny_model("llama"), [0.2, 0.5, 1.5])
    assert "not the same" in audited(tiny_folder("llama"), write(tiny_folder("llama"), own, tmp_path / "own")).summary
    own.vectors[:] = own.vectors[:1].clone()
    found = audited(tiny_folder("llama"), write(tiny_folder("llama"), own, tmp_path / "same"))
    assert found.agreement == pytest.approx(1.0, abs=1e-4)
    assert found.summary.startswith("a directional edit: 1 direction in 3 layers, gains 0.20 to 1.50, the same in all")


@pytest.mark.parametrize(("base", "copy"), [("20KB", "20KB"), ("20KB", "5GB"), ("5GB", "20KB"), ("40KB", "20KB")])
def test_shards_make_no_difference(
    base: str, copy: str, tiny_folder: Folders, tiny_model: Models, tmp_path: Path
) -> None:
    out = write(tiny_folder("llama", shard=copy), random_enhancement(tiny_model("llama"), 0.5), tmp_path / "out")
    found = audited(tiny_folder("llama", shard=base), out)
    assert (found.kind, found.tensors, found.files) == ("directional", (), ())
    assert found.identical == len(Checkpoint(out).tensors) - 3


def test_a_copy_is_identical(tiny_folder: Folders, tmp_path: Path) -> None:
    found, matches = audit_folders(tiny_folder("llama"), altered(tiny_folder("llama"), tmp_path / "out"), FLOAT)
    assert found.kind == "identical"
    assert found.summary.startswith("identical")
    assert not matches.layers
    assert not matches.names


@TYPES
def test_a_fine_tune_is_not_a_low_rank_edit(dtype: torch.dtype, tiny_folder: Folders, tmp_path: Path) -> None:
    def tune(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            tensor += (0.1 * tensor.float().std() * noise(tensor, len(name))).to(tensor.dtype)

    folder = tiny_folder("llama", dtype=dtype)
    found = audited(folder, altered(folder, tmp_path / "out", tune))
    assert found.kind == "dense"
    assert re.match(
        r"not a low-rank edit: 3 projections changed in more than 8 dimensions, the most by \d", found.summary
    )
    assert len(found.tensors) == len(Checkpoint(folder).tensors) - 3


def test_a_fine_tune_that_shows_in_few_dimensions_of_some_layers_is_no_low_rank_edit(
    tiny_folder: Folders, tmp_path: Path
) -> None:
    def tune(tensors: Tensors) -> None:
        for layer, rank in enumerate((64, 2, 3)):
            weight = tensors[WEIGHT.format(layer)]
            weight += 0.01 * noise(weight[:, :rank], layer) @ noise(weight[:rank], layer + 9)

    found = audited(tiny_folder("llama"), altered(tiny_folder("llama"), tmp_path / "out", tune))
    assert found.kind == "dense"
    assert found.summary.startswith("not a low-rank edit: 1 projection changed in more than")
    assert found.summary.endswith("and 2 projections in fewer")


@TYPES
def test_a_merged_adapter_is_low_rank(dtype: torch.dtype, tiny_folder: Folders, tmp_path: Path) -> None:
    def merge(tensors: Tensors) -> None:
        for layer in range(3):
            weight = tensors[WEIGHT.format(layer)]
            change = noise(weight[:, :2], layer) @ noise(weight[:2], layer + 9)
            weight += (0.2 * weight.float().std() * change).to(dtype)

    folder = tiny_folder("llama", dtype=dtype)
    found = audited(folder, altered(folder, tmp_path / "out", merge))
    assert found.kind == "low-rank"
    assert [entry.change.rank for entry in found.projections] == [2, 2, 2]


def test_an_edit_beside_a_fine_tune_is_mixed(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    def tune(tensors: Tensors) -> None:
        tensors[WEIGHT.format(2)] += 0.01 * noise(tensors[WEIGHT.format(2)])

    out = write(tiny_folder("llama"), random_enhancement(tiny_model("llama"), 0.5), tmp_path / "out")
    found = audited(tiny_folder("llama"), altered(out, tmp_path / "tuned", tune))
    assert found.kind == "mixed"
    assert found.summary == "a mixed change: 1 projection dense, 2 projections directional"


def test_what_an_edit_leaves_beyond_rounding_is_said(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    def disturb(tensors: Tensors) -> None:
        before = load_file(tiny_folder("llama") / "model.safetensors")[WEIGHT.format(1)]
        edit = tensors[WEIGHT.format(1)] - before
        disturbance = noise(before)
        tensors[WEIGHT.format(1)] += 0.05 * disturbance * edit.norm() / disturbance.norm()

    out = write(tiny_folder("llama"), random_enhancement(tiny_model("llama"), 0.5), tmp_path / "out")
    found = audited(tiny_folder("llama"), altered(out, tmp_path / "disturbed", disturb))
    assert found.kind == "directional"
    assert found.projections[1].change.residual == pytest.approx(0.05**2, rel=0.2)
    assert found.summary.endswith("; in 1 projection more is left than rounding explains")


def test_what_changed_elsewhere_is_named_with_its_size(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = tiny_folder("llama")

    def change(tensors: Tensors) -> None:
        tensors[MLP] *= 1.25

    out = altered(folder, tmp_path / "out", change)
    (out / "tokenizer_config.json").write_text("{}")
    (out / "new.bin").write_bytes(b"12345")
    (out / "generation_config.json").unlink()
    found = audited(folder, out)
    (tensor,) = found.tensors
    assert (tensor.name, tensor.share) == (MLP, 1.0)
    assert tensor.relative_size == pytest.approx(0.25)
    assert {file.name: (file.before, file.after) for file in found.files} == {
        "tokenizer_config.json": ((folder / "tokenizer_config.json").stat().st_size, 2),
        "new.bin": (None, 5),
        "generation_config.json": ((folder / "generation_config.json").stat().st_size, None),
    }
    assert found.summary == (
        "no attention output projection changed; also changed: 1 other tensor (the most by 25.00% of its size) and 3 files"
    )


def test_a_bias_that_does_not_follow_is_named(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    def shift(tensors: Tensors) -> None:
        tensors["model.layers.1.self_attn.o_proj.bias"] += 1.0

    out = write(tiny_folder("llama-biased"), random_enhancement(tiny_model("llama-biased"), 0.5), tmp_path / "out")
    found = audited(tiny_folder("llama-biased"), altered(out, tmp_path / "shifted", shift))
    assert [entry.bias_follows for entry in found.projections] == [True, False, True]
    assert [tensor.name for tensor in found.tensors] == ["model.layers.1.self_attn.o_proj.bias"]
    assert "in 1 projection the bias does not follow the weight" in found.summary


def test_rounding_to_a_coarser_type_is_called_rounding(tiny_folder: Folders, tmp_path: Path) -> None:
    def round_all(tensors: Tensors) -> None:
        for name in tensors:
            tensors[name] = tensors[name].bfloat16().float()

    found = audited(tiny_folder("llama"), altered(tiny_folder("llama"), tmp_path / "out", round_all))
    assert found.kind == "rounding"


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


def test_audit_and_verify_agree(tiny_folder: Folders, tiny_model: Models, tmp_path: Path) -> None:
    out = write(tiny_folder("gemma2"), random_enhancement(tiny_model("gemma2"), 0.4), tmp_path / "out")
    audit, verified = audited(tiny_folder("gemma2"), out), verify_folders(tiny_folder("gemma2"), out, FLOAT)
    assert audit.identical == verified.identical
    gains = [entry.change.gains[0] for entry in audit.projections]
    assert gains == pytest.approx([layer.gain for layer in verified.edited], rel=1e-4)


def test_only_changed_projections_are_held_whole(
    tiny_folder: Folders, tiny_model: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_folder("llama")
    out = write(folder, random_enhancement(tiny_model("llama"), [0.5, 0.0, 0.5]), tmp_path / "out")
    tensors = load_file(out / "model.safetensors")
    tensors["model.embed_tokens.weight"] *= 1.5
    save_file(tensors, out / "model.safetensors")
    read: list[str] = []
    whole = Checkpoint.read

    def recorded(checkpoint: Checkpoint, name: str) -> Tensor:
        read.append(name)
        return whole(checkpoint, name)

    monkeypatch.setattr(Checkpoint, "read", recorded)
    monkeypatch.setattr(differences, "BLOCK", 512)
    found = audited(folder, out)
    assert sorted(read) == sorted([WEIGHT.format(0), WEIGHT.format(2)] * 2)
    assert found.tensors[0].relative_size == pytest.approx(0.5)


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


def test_packed_weights_are_refused(tiny_folder: Folders, tmp_path: Path) -> None:
    def pack(tensors: Tensors) -> None:
        for layer in range(3):
            tensors[WEIGHT.format(layer)] = torch.zeros(64, 8, dtype=torch.uint8)

    base, other = (altered(tiny_folder("llama"), tmp_path / name, pack) for name in ("base", "other"))
    with pytest.raises(QuantisedModelError, match="quantised or packed"):
        audited(base, other)


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
    cut = altered(tiny_folder("llama"), tmp_path / "cut")
    data = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[:-40])
    with pytest.raises(ModelError, match="ends early"):
        audited(tiny_folder("llama"), cut)


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
    found, matches = audit_folders(tiny_folder("llama"), write(tiny_folder("llama"), used, tmp_path / "out"), FLOAT)
    named = match(found, nearest_layers(found, {"source": source, "other": source.flip(1)}))
    assert named.names[0].name == "source, layer 1"
    assert named.names[0].smallest > 0.999
    together = matches.joined(named)
    assert {name.name for name in together.names} == {"own record"} | {name.name for name in named.names}
    assert together.own == ("own record",)
    assert all(layer.cosines[layer.best] > 0.999 for layer in together.layers)
