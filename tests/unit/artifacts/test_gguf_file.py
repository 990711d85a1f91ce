"""Damaged and hostile GGUF files give a ModelError that says what is wrong, at no cost in memory."""

import struct
import tracemalloc
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader, quants

from burnish.artifacts.gguf_file import read_gguf
from burnish.errors import ModelError
from gguf_files import Kind, write_model

PEAK = 8 << 20  # bytes: the reader's own buffer and little else


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def header(*, version: int = 3, tensors: int = 0, keys: int = 0, body: bytes = b"") -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, keys) + body + bytes(4096)


def entry(name: bytes = b"t", sizes: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_1, Kind.Q5_K, Kind.Q6_K])
def test_the_header_and_values_are_those_of_the_packages_own_reader(kind: Kind, tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.gguf", kind, alignment=64)
    ours, theirs = read_gguf(path), GGUFReader(path)
    assert [(t.name, t.kind, t.shape, t.start) for t in ours.tensors.values()] == [
        (t.name, t.tensor_type, tuple(int(n) for n in reversed(t.shape)), t.data_offset) for t in theirs.tensors
    ]
    for tensor in theirs.tensors:
        expected = torch.from_numpy(quants.dequantize(tensor.data, tensor.tensor_type).copy())
        assert torch.equal(ours.read(tensor.name).float(), expected)
    scalars = {key: value for key, value in ours.metadata.items() if value is not None}
    assert scalars == {key: theirs.fields[key].contents() for key in scalars}
    assert ours.number("block_count") == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not begin"),
        (b"GGUF", "ends inside its header"),
        (b"PK\x03\x04" + bytes(100), "does not begin"),
        (header(version=1), "version 1"),
        (struct.pack("<4sIQQ", b"GGUF", 3 << 24, 0, 0), "big-endian"),
        (header(tensors=2**63), "claims 9223372036854775808 tensors"),
        (header(keys=2**64 - 1), "keys"),
        (header(keys=1, body=struct.pack("<Q", 2**60)), "a key is"),
        (header(keys=1, body=text(b"\xff\xfe")), "is not text"),
        (header(keys=1, body=text(b"")), "is empty"),
        (header(keys=2, body=2 * (text(b"k") + struct.pack("<II", 4, 1))), "there twice"),
        (header(keys=1, body=text(b"k") + struct.pack("<I", 99)), "no value type 99"),
        (header(keys=1, body=text(b"k") + struct.pack("<IQ", 8, 2**62)), "longer than the file"),
        (header(keys=1, body=text(b"k") + struct.pack("<IIQ", 9, 8, 2**61)), "a list of"),
        (header(keys=1, body=text(b"k") + struct.pack("<IIQ", 9, 4, 2**61)), "longer than the file"),
        (header(keys=1, body=text(b"k") + struct.pack("<IIQ", 9, 9, 1)), "no lists of value type 9"),
        (header(keys=1, body=text(b"general.alignment") + struct.pack("<II", 4, 48)), "no power of two"),
        (header(keys=1, body=text(b"general.alignment") + struct.pack("<II", 4, 0)), "no power of two"),
        (header(tensors=1, body=entry(name=b"n" * 80)), "tensor's name is 80 bytes"),
        (header(tensors=1, body=entry(sizes=(1, 1, 1, 1, 1))), "5 dimensions"),
        (header(tensors=1, body=entry(sizes=(2**40, 2**40))), "cannot have the shape"),
        (header(tensors=1, body=entry(sizes=(2**50,))), "ends before the tensor"),
        (header(tensors=1, body=entry(kind=2, sizes=(31,))), "cannot have the shape"),
        (header(tensors=1, body=entry(kind=5000)), "type 5000"),
        (header(tensors=1, body=entry(offset=2**40)), "lies at"),
        (header(tensors=2, body=entry() + entry(offset=32)), "there twice"),
        (header(tensors=2, body=entry(b"a", (16,)) + entry(b"b", (16,), offset=32)), "lies at 32"),
    ],
)
def test_a_hostile_header_is_named(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    assert _error(path) is not None
    assert message in str(_error(path))


def _error(path: Path) -> ModelError | None:
    """What reading a file raises; anything else than a ModelError fails the test, and so does memory."""
    tracemalloc.start()
    try:
        file = read_gguf(path)
        for name, tensor in file.tensors.items():
            assert tensor.end <= file.size, name
        return None
    except ModelError as error:
        assert str(path) in str(error)
        return error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < PEAK
