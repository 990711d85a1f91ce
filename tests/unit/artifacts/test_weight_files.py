"""One answer to which files are the weights: those that the library loads."""

import json
from pathlib import Path

import pytest

from burnish.artifacts.copying import copied_bytes, copied_files, left_out
from burnish.artifacts.weight_files import INDEX, SINGLE, weight_files
from burnish.errors import ModelError

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def holding(folder: Path, *names: str, shards: tuple[str, ...] = ()) -> Path:
    for name in (*names, *shards):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1234")
    if shards:
        (folder / INDEX).write_text(json.dumps({"weight_map": dict(zip("ab", shards, strict=False))}))
    return folder


def test_one_file_or_the_shards_of_an_index_are_the_weights(tmp_path: Path) -> None:
    assert weight_files(holding(tmp_path / "one", SINGLE)) == (SINGLE,)
    assert weight_files(holding(tmp_path / "many", shards=SHARDS)) == SHARDS
    assert weight_files(holding(tmp_path / "both", shards=(SINGLE,))) == (SINGLE,)


def test_weights_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"twice.*Remove model\.safetensors"):
        weight_files(holding(tmp_path, SINGLE, shards=SHARDS))


@pytest.mark.parametrize("name", [SHARDS[0], "model.fp16.safetensors", "consolidated.safetensors"])
def test_files_that_the_library_would_not_load_are_no_weights(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=f"neither.*{name}"):
        weight_files(holding(tmp_path, name))


def test_a_config_may_name_other_weights(tmp_path: Path) -> None:
    folder = holding(tmp_path, SINGLE, "second.safetensors")
    (folder / "config.json").write_text('{"transformers_weights": "second.safetensors"}')
    assert weight_files(folder) == ("second.safetensors",)
    for name in ("gone.safetensors", "../second.safetensors", 3):
        (folder / "config.json").write_text(json.dumps({"transformers_weights": name}))
        with pytest.raises(ModelError, match="transformers_weights"):
            weight_files(folder)


def test_a_copy_holds_everything_but_other_forms_of_the_weights(tmp_path: Path) -> None:
    others = ("consolidated.00.pth", "model.fp16.safetensors", "onnx/model.onnx", "original/a.pth", "pytorch_model.bin")
    copied = (
        "1_Pooling/model.safetensors",
        "config.json",
        "heads.safetensors",
        SINGLE,
        "optimizer.pt",
        "tokenizer.model",
    )
    folder = holding(tmp_path, *copied, *others)
    (folder / "config.json").write_text("{}")
    assert left_out(folder) == sorted(others)
    assert {p.relative_to(folder).as_posix() for p in copied_files(folder)} == set(copied)
    assert copied_bytes(folder) == 4 * (len(copied) - 1) + 2
