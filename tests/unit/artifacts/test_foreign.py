"""Vectors of repeng and steering-vectors are read; a pickle that would run code is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from burnish.artifacts.direction import Direction
from burnish.artifacts.foreign import is_foreign, read_foreign
from burnish.errors import BurnishError, InputError, WrongModelError
from burnish.maths.statistics import unit
from gguf_files import HIDDEN, anatomy, enhancement, write_control_vector, write_model, write_steering_vector

SHAPE = anatomy(layers=6)
VECTORS = torch.randn(6, HIDDEN, generator=torch.Generator().manual_seed(0))


def direction(path: Path, shape: object = SHAPE) -> Direction:
    return read_foreign(path).direction(path, shape, model="m", fingerprint="f", architecture="a")  # type: ignore[arg-type]


def test_layers_without_a_vector_are_never_edited(tmp_path: Path) -> None:
    vectors = VECTORS.clone()
    vectors[[2, 4]] = 0
    write_control_vector(tmp_path / "c.gguf", vectors)
    read = direction(tmp_path / "c.gguf")
    assert read.vectors.norm(dim=1).tolist() == pytest.approx([0, 1, 0, 1, 0, 1])
    assert read.enhancement(0.5).edited_layers() == [1, 3, 5]
    assert read.enhancement(0.5, layers="0..2").edited_layers() == [1]
    assert read.layer == 3
    assert "repeng control vector, llama" in read.provenance.enhance
    assert read.report.held_out == 0
    read.save(tmp_path / "d.safetensors")
    assert torch.equal(Direction.load(tmp_path / "d.safetensors").vectors, read.vectors)


def test_vectors_in_half_precision_are_read(tmp_path: Path) -> None:
    read = direction(write_control_vector(tmp_path / "c.gguf", VECTORS.half()))
    torch.testing.assert_close(read.vectors[1:], unit(VECTORS[1:]), rtol=1e-3, atol=1e-4)


def test_what_repengs_own_class_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "float_", np.float64, raising=False)  # repeng 0.4.0 names it, and NumPy 2 took it away
    control = pytest.importorskip("repeng", reason="repeng is not installed").ControlVector
    ours = write_control_vector(tmp_path / "ours.gguf", VECTORS)
    (control.import_gguf(ours) * 2.0).export_gguf(tmp_path / "theirs.gguf")
    torch.testing.assert_close(direction(tmp_path / "theirs.gguf").vectors, direction(ours).vectors)


def test_what_steering_vectors_own_class_holds_is_read_and_its_pickle_is_not(tmp_path: Path) -> None:
    steering = pytest.importorskip("steering_vectors", reason="steering-vectors is not installed")
    vector = steering.SteeringVector(dict(enumerate(VECTORS)))
    torch.save(vector.layer_activations, tmp_path / "theirs.pt")
    torch.testing.assert_close(direction(tmp_path / "theirs.pt").vectors, unit(VECTORS))
    torch.save(vector, tmp_path / "pickled.pt")
    with pytest.raises(InputError, match=r"vector\.layer_activations"):
        read_foreign(tmp_path / "pickled.pt")


def test_steering_vectors_are_read_from_safetensors(tmp_path: Path) -> None:
    write_steering_vector(tmp_path / "vector.safetensors", VECTORS)
    assert is_foreign(tmp_path / "vector.safetensors")
    read = direction(tmp_path / "vector.safetensors")
    torch.testing.assert_close(read.vectors, unit(VECTORS))
    assert read.site == "residual"


def test_vectors_of_attention_keep_their_site(tmp_path: Path) -> None:
    torch.save({"layer_type": "self_attn", "layer_activations": {1: VECTORS[1][None, None]}}, tmp_path / "v.pt")
    assert direction(tmp_path / "v.pt").site == "attention"
    torch.save({"layer_type": "mlp", "layer_activations": {1: VECTORS[1]}}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="vectors for 'mlp'"):
        read_foreign(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["v.pt", "v.bin", "v.safetensors", "v.gguf"])
@pytest.mark.parametrize("data", [b"", b"nonsense" * 40, b"\x80\x02}."])
def test_what_is_no_vector_file_gets_a_clear_error(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BurnishError, match=name.replace(".", r"\.")):
        read_foreign(tmp_path / name)


def test_other_contents_are_refused(tmp_path: Path) -> None:
    torch.save([VECTORS], tmp_path / "list.pt")
    with pytest.raises(InputError, match="not a dict from layer to vector"):
        read_foreign(tmp_path / "list.pt")
    torch.save({1: torch.zeros(HIDDEN), 2: torch.full((HIDDEN,), float("nan"))}, tmp_path / "zero.pt")
    with pytest.raises(InputError, match="no vector that points anywhere"):
        read_foreign(tmp_path / "zero.pt")
    with pytest.raises(InputError, match="not a control vector"):
        read_foreign(write_model(tmp_path / "model.gguf"))


def test_a_vector_of_another_model_is_refused(tmp_path: Path) -> None:
    write_control_vector(tmp_path / "c.gguf", VECTORS)
    with pytest.raises(WrongModelError, match="64 wide up to layer 5"):
        direction(tmp_path / "c.gguf", anatomy(layers=4))
    save_file({"layer_activations.1": torch.ones(8)}, tmp_path / "narrow.safetensors")
    with pytest.raises(WrongModelError, match="8 wide"):
        direction(tmp_path / "narrow.safetensors")


def test_our_own_files_are_not_foreign(tmp_path: Path) -> None:
    enhancement().save(tmp_path / "e.safetensors")
    assert not is_foreign(tmp_path / "e.safetensors")
    assert not is_foreign(tmp_path)
