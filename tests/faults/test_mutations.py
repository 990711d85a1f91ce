"""Damaged and hostile files: each is read rightly or refused in words, in bounded time and memory."""

import json
import random
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from burnish.artifacts.checkpoint import DTYPES, Checkpoint
from burnish.artifacts.direction import Direction, Enhancement
from burnish.artifacts.direction_file import kind_of
from burnish.artifacts.foreign import read_foreign
from burnish.artifacts.gguf_file import read_gguf
from burnish.artifacts.lora import read_lora
from burnish.artifacts.verify import read_record
from burnish.artifacts.weight_files import INDEX
from burnish.errors import BurnishError, QuantisedModelError
from burnish.hybrid.result import read_trained
from faults.children import ended, started
from faults.mutating import changed, damaged, with_header
from gguf_files import Kind, enhancement, write_control_vector, write_model, write_steering_vector

ROOM = 512 << 20  # bytes of memory that all reading together may take beside what the program has


def read_checkpoint(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    assert checkpoint.fingerprint
    for name, stored in checkpoint.tensors.items():
        if stored.dtype in DTYPES:
            tensor = checkpoint.read(name)
            data = (folder / stored.file).read_bytes()[stored.start : stored.end]
            assert (tuple(tensor.shape), tensor.dtype) == (stored.shape, DTYPES[stored.dtype])
            assert tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() == data


def read_direction(path: Path) -> None:
    read = Direction.load(path) if kind_of(path) == "direction" else Enhancement.load(path)
    assert read.vectors.isfinite().all()
    if isinstance(read, Direction):
        read = read.enhancement(0.5)
    assert read.vectors.shape[:2] == read.gains.shape
    assert read.edited_layers() == [n for n in range(len(read.gains)) if read.gains[n].any()]
    assert all(str(direction) for direction in read.directions)


def read_gguf_whole(path: Path) -> None:
    file = read_gguf(path)
    for name, tensor in file.tensors.items():
        assert tensor.end <= file.size
        assert tuple(file.read(name).shape) == tensor.shape


def read_vectors(path: Path) -> None:
    foreign = read_foreign(path)
    assert all(vector.isfinite().all() for vector in foreign.vectors.values())


def read_adapter(path: Path) -> None:
    assert read_lora(path.parent).factors


def read_records(path: Path) -> None:
    read_record(path.parent)
    read_trained(path.parent)


Example = tuple[Path, Callable[[Path], None], str]  # the file to damage, what reads it, what kind of header it has


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """One whole file of every kind that is read."""
    plan = enhancement()
    for name in ("model", "shards", "adapter", "record"):
        (tmp_path / name).mkdir()
    weights = {f"layers.{n}.o.weight": torch.randn(4, 6).to(t) for n, t in enumerate(DTYPES.values())}
    weights["empty"], weights["count"] = torch.zeros(0, 3), torch.tensor(3)
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    for number, name in enumerate(weights):
        save_file({name: weights[name]}, tmp_path / "shards" / f"{number}.safetensors")
    index = {"metadata": {}, "weight_map": {name: f"{number}.safetensors" for number, name in enumerate(weights)}}
    (tmp_path / "shards" / INDEX).write_text(json.dumps(index))
    plan.directions[0].save(tmp_path / "direction.safetensors")
    plan.save(tmp_path / "plan.safetensors")
    vectors = torch.randn(3, 16)
    write_steering_vector(tmp_path / "steering.safetensors", vectors)
    write_control_vector(tmp_path / "control.gguf", vectors)
    torch.save(dict(enumerate(vectors)), tmp_path / "vectors.pt")
    write_model(tmp_path / "model.gguf", Kind.Q4_0)
    lora = {
        f"base_model.model.o.lora_{side}.weight": torch.randn(shape) for side, shape in (("A", (2, 6)), ("B", (4, 2)))
    }
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(save(lora))
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4})
    )
    (tmp_path / "record" / "burnish").mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / "record" / name).write_bytes((tmp_path / "adapter" / name).read_bytes())
    plan.save(tmp_path / "record" / "burnish" / "enhancement.safetensors")
    gains = [{"tensor": "o.weight", "layer": 0, "asked": [0.5], "realised": [0.5]}]
    record = {"burnish": "trained", "check": None, "gains": gains, "sha256": {"o.weight": "00"}, "combine": "keep"}
    (tmp_path / "record" / "burnish.json").write_text(json.dumps(record))
    return [
        (tmp_path / "model" / "model.safetensors", lambda path: read_checkpoint(path.parent), "safetensors"),
        (tmp_path / "shards" / INDEX, lambda path: read_checkpoint(path.parent), "json"),
        (tmp_path / "direction.safetensors", read_direction, "safetensors"),
        (tmp_path / "plan.safetensors", read_direction, "safetensors"),
        (tmp_path / "steering.safetensors", read_vectors, "safetensors"),
        (tmp_path / "control.gguf", read_vectors, "gguf"),
        (tmp_path / "vectors.pt", read_vectors, "other"),
        (tmp_path / "model.gguf", read_gguf_whole, "gguf"),
        (tmp_path / "adapter" / "adapter_model.safetensors", read_adapter, "safetensors"),
        (tmp_path / "adapter" / "adapter_config.json", read_adapter, "json"),
        (tmp_path / "record" / "burnish.json", read_records, "json"),
    ]


def mutation(data: bytes, kind: str, chance: random.Random) -> bytes:
    if kind == "safetensors" and chance.random() < 0.7:
        return with_header(data, chance)
    if kind == "json" and chance.random() < 0.7:
        return json.dumps(changed(json.loads(data), chance)).encode()
    header = {
        "safetensors": 8 + int.from_bytes(data[:8], "little"),
        "gguf": min(len(data), 1500),
    }.get(kind, len(data))
    return damaged(data, chance, header=header)


@pytest.mark.parametrize("rounds", [25, pytest.param(800, marks=pytest.mark.full)])
def test_a_damaged_file_is_read_rightly_or_refused_in_words(
    rounds: int, examples: list[Example], tmp_path: Path
) -> None:
    for path, read, _ in examples:
        read(path)

    def all_of_them() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
        for number, (path, read, kind) in enumerate(examples):
            data, refused = path.read_bytes(), 0
            chance = random.Random(f"{number} {rounds}")
            for _ in range(rounds):
                path.write_bytes(mutation(data, kind, chance))
                try:
                    read(path)
                except BurnishError as error:
                    refused += 1
                    assert 20 < len(str(error)) < 1000, str(error)
            assert refused > rounds // 4, path
            path.write_bytes(data)
            read(path)

    assert ended(started(all_of_them)) == 0


@pytest.mark.parametrize("share", [n / 12 for n in range(12)])
def test_a_file_cut_short_anywhere_is_refused(share: float, examples: list[Example]) -> None:
    for path, read, _ in examples:
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(BurnishError):
            read(path)
        path.write_bytes(data)


HEADERS = {
    "overlapping": {"a": ("F32", [2], [0, 8]), "b": ("F32", [2], [4, 12])},
    "a gap": {"a": ("F32", [2], [0, 8]), "b": ("F32", [1], [12, 16])},
    "behind the end": {"a": ("F32", [4], [0, 16]), "b": ("F32", [1], [16, 20])},
    "not to the end": {"a": ("F32", [2], [0, 8])},
    "another size": {"a": ("F32", [5], [0, 16])},
    "huge counts": {"a": ("F32", [2**40, 2**40], [0, 16])},
    "counts that cancel out": {"a": ("F32", [2**62, 2**62, 0], [0, 16])},
    "a negative shape": {"a": ("F32", [-2, -2], [0, 16])},
    "a shape of truths": {"a": ("F32", [True, 4], [0, 16])},
    "backwards": {"a": ("F32", [4], [16, 0])},
    "fractions": {"a": ("F32", [4.0], [0, 16])},
    "no number": {"a": ("F32", [float("nan")], [0, 16])},
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_contradicts_itself_is_refused(case: str, tmp_path: Path) -> None:
    header = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        for name, (dtype, shape, offsets) in HEADERS[case].items()
    }
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    with pytest.raises(BurnishError, match=r"damaged header|ends early"):
        _ = Checkpoint(tmp_path).tensors


def test_a_type_that_is_not_known_is_kept_and_not_read(tmp_path: Path) -> None:
    text = json.dumps({"a": {"dtype": "F2_NEW", "shape": [64], "data_offsets": [0, 16]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.fingerprint
    with pytest.raises(QuantisedModelError, match="F2_NEW"):
        checkpoint.read("a")


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_file({"a": torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BurnishError, match="lies in two files"):
        _ = Checkpoint(tmp_path).tensors
