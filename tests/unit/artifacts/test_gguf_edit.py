"""An edited GGUF file differs from its source in the edited tensors, their places and one key, and in nothing else."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from burnish.artifacts.gguf_edit import MARK, STRAY_TOLERANCE
from burnish.artifacts.gguf_file import read_gguf
from burnish.errors import InputError, ModelError, OutputError, WrongModelError
from burnish.forms.base import Applied
from burnish.model.gguf_plan import GgufPlan
from burnish.options import FormName, ModelOptions, OutputOptions
from burnish.pipeline import export, open_plan, write_plan
from gguf_files import LAYERS, Kind, anatomy, enhancement, values, write_model

EVERY_KIND = [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_1, Kind.Q5_K, Kind.Q6_K]
PROJECTIONS = [f"blk.{layer}.attn_output.weight" for layer in range(LAYERS)]


def edit(source: Path, out: Path, gain: float = 0.5, *, form: FormName = "gguf", **settings: object) -> Applied:
    return export(enhancement(gain, **settings), out, form=form, model=source)  # type: ignore[arg-type]


def raw(path: Path) -> dict[str, bytes]:
    data = path.read_bytes()
    return {name: data[t.start : t.end] for name, t in read_gguf(path).tensors.items()}


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("alignment", [None, 128])
def test_every_other_byte_is_kept(kind: Kind, alignment: int | None, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", kind, alignment=alignment)
    before = source.read_bytes()
    edit(source, tmp_path / "b.gguf")
    assert source.read_bytes() == before
    old, new = read_gguf(source), read_gguf(tmp_path / "b.gguf")
    after = new.path.read_bytes()
    assert after[:16] == before[:16]
    assert struct.unpack("<Q", after[16:24])[0] == struct.unpack("<Q", before[16:24])[0] + 1
    assert after[24 : old.keys_end] == before[24 : old.keys_end]  # every key-value, in its order
    assert after[old.keys_end + 8 :].startswith(MARK.encode())
    # The tensors' entries: the same bytes but for the types of the edited ones and all offsets.
    entries = [bytearray(before[old.keys_end : old.entries_end]), bytearray(after[new.keys_end : new.entries_end])]
    for file, entry in zip((old, new), entries, strict=True):
        for name, tensor in file.tensors.items():
            place = tensor.entry - file.keys_end
            changed_bytes = 4 if name in PROJECTIONS else 0
            entry[place + 4 - changed_bytes : place + 12] = bytes(8 + changed_bytes)
    assert entries[0] == entries[1]
    assert list(new.tensors) == list(old.tensors)
    assert all(tensor.start % new.alignment == 0 for tensor in new.tensors.values())
    one, other = raw(source), raw(new.path)
    assert [name for name in one if one[name] != other[name]] == PROJECTIONS


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("gain", [-0.5, 0.05, 1.5])
def test_the_gain_is_realised_and_the_rest_left_alone(kind: Kind, gain: float, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", kind)
    applied = edit(source, tmp_path / "b.gguf", gain)
    plan = enhancement(gain)
    for layer, name in enumerate(PROJECTIONS):
        before, after = values(source, name).double(), values(tmp_path / "b.gguf", name).double()
        direction = plan.vectors[layer, 0].double()
        old, new = direction @ before, direction @ after
        realised = float((new - old) @ old / (old @ old))
        assert realised == pytest.approx(gain, rel=0.011)
        assert applied.gains[layer].realised[0] == pytest.approx(realised, rel=1e-4)
        exact = before + gain * torch.outer(direction, old)
        rounding = {"F32": 1e-6, "F16": 1e-3, "BF16": 1e-2}.get(applied.gains[layer].stored, 1e-2)  # type: ignore[attr-defined]
        assert float((after - exact).norm() / exact.norm()) < rounding


def test_floating_point_types_stay_and_coarse_blocks_become_float16(tmp_path: Path) -> None:
    for kind in EVERY_KIND:
        applied = edit(write_model(tmp_path / f"{kind.name}.gguf", kind), tmp_path / f"{kind.name}-out.gguf", 0.05)
        stored = {gain.stored for gain in applied.gains}  # type: ignore[attr-defined]
        assert stored == {kind.name if kind in (Kind.F32, Kind.F16, Kind.BF16) else "F16"}
        assert any(f"as {next(iter(stored))}" in note for note in applied.notes)


def test_a_block_type_stays_where_it_holds_the_edit(tmp_path: Path) -> None:
    applied = edit(write_model(tmp_path / "a.gguf", Kind.Q8_0), tmp_path / "b.gguf", 3.0)
    for gain in applied.gains:
        assert gain.stored == gain.before == "Q8_0"  # type: ignore[attr-defined]
        assert gain.stray < STRAY_TOLERANCE  # type: ignore[attr-defined]
    assert (tmp_path / "b.gguf").stat().st_size < (tmp_path / "a.gguf").stat().st_size + 4096


def test_values_beyond_float16_are_written_as_float32(tmp_path: Path) -> None:
    applied = edit(write_model(tmp_path / "a.gguf", Kind.Q4_0, scale=4e4), tmp_path / "b.gguf")
    assert {gain.stored for gain in applied.gains} == {"F32"}  # type: ignore[attr-defined]
    assert bool(values(tmp_path / "b.gguf", PROJECTIONS[0]).isfinite().all())


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", Kind.F32)
    data = bytearray(source.read_bytes())
    place = read_gguf(source).tensors[PROJECTIONS[1]].start
    data[place : place + 4] = struct.pack("<f", float("nan"))
    source.write_bytes(data)
    with pytest.raises(ModelError, match="not finite"):
        edit(source, tmp_path / "b.gguf")
    assert not (tmp_path / "b.gguf").exists()


def test_without_gains_the_file_is_a_copy(tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", Kind.Q4_1)
    assert edit(source, tmp_path / "b.gguf", 0.0).gains == ()
    assert (tmp_path / "b.gguf").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("form", ["gguf", "gguf-lora"])
def test_a_dry_run_says_the_exact_size(form: FormName, kind: Kind, tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", kind)
    for gain in (0.5, 3.0):
        out = tmp_path / f"{gain}.gguf"
        plan = open_plan(source, ModelOptions(), enhancement=enhancement(gain), form=form)
        output = OutputOptions(out=out, form=form)
        planned = write_plan(plan, output, [], enhancement=enhancement(gain), name=str(source))
        assert not out.exists()
        edit(source, out, gain, form=form)
        assert planned.bytes == out.stat().st_size
        assert planned.projections == LAYERS


def test_a_file_is_edited_twice_where_that_is_asked_for(tmp_path: Path) -> None:
    edit(write_model(tmp_path / "a.gguf"), tmp_path / "b.gguf")
    assert GgufPlan.open(tmp_path / "b.gguf", enhancement(), again=True).edits


def test_a_file_converted_for_finding_the_direction_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import burnish.model.gguf_plan as planning

    class Known:
        def __init__(self, folder: Path) -> None:
            self.fingerprint = "5" * 64

    source = write_model(tmp_path / "a.gguf")
    (tmp_path / "converted").mkdir()
    (tmp_path / "converted" / "config.json").write_text("{}")
    monkeypatch.setattr(planning, "converted_folder", lambda path: tmp_path / "converted")
    monkeypatch.setattr(planning, "Checkpoint", Known)
    assert GgufPlan.open(source, enhancement(fingerprint="5" * 64)).notes == ()
    assert GgufPlan.open(source, enhancement(fingerprint="6" * 64)).notes != ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 3}, "3 layers, 64 wide"),
        ({"architecture": "no-such-model"}, "knows no architecture"),
        ({"leave_out": "blk.1.attn_output"}, "has no tensor 'blk.1.attn_output.weight'"),
        ({"keys": {"split.count": 4}}, "one of 4 parts"),
    ],
)
def test_a_file_of_another_model_or_a_part_is_refused(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    source = write_model(tmp_path / "a.gguf", **settings)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=message):
        edit(source, tmp_path / "b.gguf")
    assert not (tmp_path / "b.gguf").exists()


def test_another_shape_is_refused(tmp_path: Path) -> None:
    shape = anatomy()
    wide = replace(shape, projections=tuple(replace(p, inputs=512) for p in shape.projections))
    with pytest.raises(WrongModelError, match=r"is \[64, 256\], and the plan was made for \[64, 512\]"):
        GgufPlan.open(write_model(tmp_path / "a.gguf"), enhancement(shape=wide))


def test_a_model_that_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a \.gguf file"):
        GgufPlan.open(tmp_path, enhancement())
    with pytest.raises(InputError, match="does not exist"):
        GgufPlan.open(tmp_path / "none.gguf", enhancement())


def test_the_source_is_never_the_output(tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf")
    before = source.read_bytes()
    with pytest.raises(OutputError, match="own file"):
        export(enhancement(), source, form="gguf", model=source, overwrite=True)
    assert source.read_bytes() == before
