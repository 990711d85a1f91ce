"""Whatever folder or file: what is loaded is what is edited, what is read is what was written, or it is refused in words.

`BURNISH_FUZZ=20` makes the long run twenty times as long, with other examples each time.
"""

import csv
import io
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from burnish.artifacts.weight_files import INDEX
from burnish.errors import BurnishError, PromptFileError
from burnish.model.model import load
from burnish.options import ModelOptions, OutputOptions
from burnish.pipeline import apply, open_plan
from burnish.prompts import read_prompts
from conftest import Folders, random_enhancement
from faults.mutating import changed, damaged

TIMES = int(os.environ.get("BURNISH_FUZZ", "1"))
FLOAT = ModelOptions(dtype="float32")
IDS = torch.tensor([[1, 50, 60, 70, 80]])
LARGEST = 600  # of a whole number in a config: what takes more memory is tested where memory is bounded
MOST_LAYERS = 12
PREFIXES = ("model.", "module.", "_orig_mod.", "base_model.model.", "language_model.")
BESIDE = (
    "pytorch_model.bin",
    "model.fp16.safetensors",
    "consolidated.safetensors",
    "adapter_model.safetensors",
    "adapter_config.json",
    "model-00009-of-00009.safetensors",
    "model.safetensors",
    INDEX,
    "notes.txt",
)


def run_of(few: int, many: int) -> Any:
    """So many examples, the same each time; in the long run more of them, and others each time."""
    return pytest.mark.parametrize("examples", [few, pytest.param(many * TIMES, marks=pytest.mark.full)])


def chosen(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=examples < 100,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def other_weights(folder: Path, chance: Random) -> None:
    """Tensors renamed, gone, there twice, of another size or kind."""
    file = chance.choice(sorted(folder.glob("*.safetensors")))
    tensors = load_file(file)
    name = chance.choice(sorted(tensors))
    many = sorted(tensors) if chance.random() < 0.4 else [name]
    prefix = chance.choice(PREFIXES)
    match chance.randrange(7):
        case 0:
            tensors = {prefix + n if n in many else n: t for n, t in tensors.items()}
        case 1:
            tensors = {n.removeprefix(prefix) if n in many else n: t for n, t in tensors.items()}
        case 2:
            tensors |= {prefix + n: tensors[n] + 1 for n in many}
        case 3:
            tensors |= {n.removeprefix(prefix): tensors[n] + 1 for n in many}
        case 4:
            del tensors[name]
        case 5:
            tensors[name] = tensors[name][: len(tensors[name]) // 2]
        case _:
            kind = chance.choice((torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.float8_e4m3fn))
            tensors |= {n: tensors[n].to(kind) for n in many}
    save_file({n: t.contiguous() for n, t in tensors.items()}, file, metadata={"format": "pt"})


def other_settings(folder: Path, chance: Random) -> None:
    names = ("config.json", "config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", INDEX)
    path = folder / chance.choice(names)
    if not path.is_file():
        return
    text = path.read_bytes()
    if chance.random() < 0.2:
        path.write_bytes(damaged(text, chance, header=len(text)))
        return
    value = changed(json.loads(text), chance)
    layers = value.get("num_hidden_layers") if isinstance(value, dict) else None
    if path.name != "config.json" or (
        largest(value) <= LARGEST and not (isinstance(layers, int) and layers > MOST_LAYERS)
    ):
        path.write_text(json.dumps(value))


def largest(value: Any) -> int:
    """The largest whole number anywhere in a JSON value."""
    if isinstance(value, dict | list):
        return max(map(largest, value.values() if isinstance(value, dict) else value), default=0)
    return abs(value) if isinstance(value, int) else 0


def other_files(folder: Path, chance: Random) -> None:
    """A copy under another name, other weights beside the model's, or a file less."""
    path, name = chance.choice(sorted(folder.iterdir())), chance.choice(BESIDE)
    match chance.randrange(3):
        case 0 if path.name != name:
            shutil.copy(path, folder / name)
        case 1:
            weights = load_file(chance.choice(sorted(folder.glob("*.safetensors"))))
            save_file({n: tensor.float() + 1 for n, tensor in weights.items()}, folder / name)
        case _:
            path.unlink()


CHANGES = (other_weights, other_settings, other_files)


@run_of(4, 300)
def test_what_is_loaded_is_what_is_edited(examples: int, tiny_folder: Folders) -> None:
    bases = [tiny_folder("llama", shard=size) for size in ("5GB", "20KB")]

    @chosen(examples)
    @given(
        st.sampled_from(bases),
        st.lists(st.sampled_from(CHANGES), min_size=1, max_size=3),
        st.randoms(use_true_random=False),
    )
    def any_folder(base: Path, changes: list[Callable[[Path, Random], None]], chance: Random) -> None:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(shutil.copytree(base, Path(place) / "model"))
            try:
                for change in changes:
                    change(folder, chance)
            except (IndexError, SafetensorError):  # nothing is left to change
                return
            try:
                live, written = edited(folder, Path(place) / "out")
            except BurnishError as error:
                assert 20 < len(str(error)) < 2000, str(error)
            else:
                size = float(live.abs().nan_to_num(0, 0, 0).max())
                assert torch.allclose(written, live, rtol=1e-3, atol=1e-3 * max(size, 1e-3), equal_nan=True)

    any_folder()


def edited(folder: Path, out: Path) -> tuple[Tensor, Tensor]:
    """Logits of the live model, and of the one that is written, as the library loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load(folder, FLOAT)
        enhancement = random_enhancement(model, 0.5)
        with torch.no_grad(), model.enhanced(enhancement):
            live: Tensor = model.network(IDS).logits
        apply(open_plan(folder, FLOAT), enhancement, OutputOptions(out=out), name="x")
        written = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    with torch.no_grad():
        return live, written(IDS).logits


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


def rows_as(ending: str, rows: list[dict[str, str]]) -> bytes:
    """A table of rows with the same columns, as a file with this ending holds it."""
    if ending == "parquet":
        sink = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
        return sink.getvalue()
    if ending in ("csv", "tsv"):
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, list(rows[0]), delimiter="\t" if ending == "tsv" else ",", quoting=csv.QUOTE_ALL)
        table.writeheader()
        table.writerows(rows)
        return text.getvalue().encode()
    if ending == "json":
        return json.dumps(rows).encode()
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@run_of(40, 3000)
def test_the_prompts_of_every_table_are_those_that_were_written(examples: int, tmp_path: Path) -> None:
    @chosen(examples)
    @given(
        st.sampled_from(["csv", "tsv", "json", "jsonl", "parquet"]),
        st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5),
        st.sampled_from([("prompt", "answer"), ("Question", "output"), ("instruction", "response")]),
    )
    def any_rows(ending: str, pairs: list[tuple[str, str]], columns: tuple[str, str]) -> None:
        path = tmp_path / f"rows.{ending}"
        path.write_bytes(rows_as(ending, [dict(zip(columns, pair, strict=True)) for pair in pairs]))
        read = read_prompts(path, answers=True).prompts
        assert [(p.text, p.answer) for p in read] == [(asked.strip(), answer) for asked, answer in pairs]

    any_rows()


@run_of(40, 5000)
def test_a_damaged_or_odd_file_of_prompts_is_read_or_refused_in_words(examples: int, tmp_path: Path) -> None:
    words = st.sampled_from(
        ["prompt", "messages", "role", "content", "user", "assistant", "system", "history", "label"]
    )
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
        max_leaves=8,
    )

    @chosen(examples)
    @given(
        st.sampled_from(["txt", "csv", "tsv", "json", "jsonl", "parquet", "md", ""]),
        st.lists(st.dictionaries(words, values, min_size=1, max_size=3), min_size=1, max_size=3),
        st.randoms(use_true_random=False),
        st.sampled_from(["rows", "cells", "damaged"]),
    )
    def any_file(ending: str, rows: list[dict[str, Any]], chance: Random, kind: str) -> None:
        path = tmp_path / f"file.{ending}".rstrip(".")
        data = rows_as("jsonl", rows)
        if kind != "rows" and ending in ("csv", "tsv", "parquet"):
            data = rows_as(ending, [{"prompt": str(row).encode("utf-8", "replace").decode()} for row in rows])
        path.write_bytes(damaged(data, chance, header=len(data)) if kind == "damaged" else data)
        try:
            read = read_prompts(path)
        except PromptFileError as error:
            assert str(path) in str(error)
        else:
            assert all(prompt.text.strip() for prompt in read.prompts)
            assert len(read.hash) == 64

    any_file()
