"""Whatever the libraries raise where their work is asked for ends as an error in words with an exit code of ours."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
import transformers
import yaml
from huggingface_hub import errors as hub
from huggingface_hub.errors import StrictDataclassError
from pyarrow import parquet
from safetensors import SafetensorError

from burnish.artifacts.card import base_facts
from burnish.cli.app import run
from burnish.cli.explain import _json
from burnish.errors import InputError
from burnish.model.skeleton import REFUSALS
from conftest import Folders

SYSTEM = (PermissionError(13, "no"), OSError(5, "input/output"), OSError(24, "too many open files"))


def kinds(*roots: type[Exception]) -> Iterator[Exception]:
    """One of each of some exceptions and of those below them that take a text."""
    for root in roots:
        try:
            yield root("what the library says")
        except TypeError:
            continue
        yield from kinds(*root.__subclasses__())


READING = [
    ("rows.csv", "csv.reader", csv.Error("line contains NUL")),
    *(("rows.parquet", "pyarrow.parquet.read_table", error) for error in kinds(pyarrow.ArrowException)),
    *(("rows.parquet", "pyarrow.parquet.read_table", kind("x")) for kind in (KeyError, OverflowError, ValueError)),
    *(("rows.jsonl", "json.loads", error) for error in (json.JSONDecodeError("x", "y", 0), RecursionError())),
    *(
        (name, "pathlib.Path.read_bytes", error)
        for name in ("rows.txt", "rows.csv", "rows.parquet")
        for error in SYSTEM
    ),
    *(("rows.txt", "pathlib.Path.exists", error) for error in SYSTEM),
]


@pytest.mark.parametrize(("name", "where", "error"), READING, ids=lambda value: str(value)[:40])
def test_readers_of_prompts(
    name: str, where: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        parquet.write_table(pyarrow.table({"prompt": ["a"]}), path)
    else:
        path.write_text('{"prompt": "a"}\n' if name.endswith("jsonl") else "prompt\na\n")
    monkeypatch.setattr(where, thrower(error))
    code = run(["domains", "lint", str(path)])
    monkeypatch.undo()
    assert code in (2, 5)
    assert "Error: " in capsys.readouterr().err


@pytest.mark.parametrize("part", ["AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"])
@pytest.mark.parametrize(
    "error",
    [*(kind("x") for kind in REFUSALS), StrictDataclassError("x"), SafetensorError("x")],
    ids=lambda e: type(e).__name__,
)
def test_loading_a_model(
    part: str, error: Exception, tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    raised_there = {StrictDataclassError: "AutoConfig", SafetensorError: "AutoModelForCausalLM"}
    if raised_there.get(type(error), part) != part:
        pytest.skip("raised in another part alone")
    folder = tiny_folder("llama")
    monkeypatch.setattr(f"transformers.{part}.from_pretrained", thrower(error))
    assert run(["chat", str(folder), "--prompt", "hi", "--tokens", "1"]) == 3
    assert "Error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [*kinds(yaml.YAMLError), ValueError("what it says"), RecursionError(), *SYSTEM], ids=str
)
def test_recipes(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "recipe.yaml").write_text("find: {model: x}\n")
    monkeypatch.setattr("yaml.load", thrower(error))
    assert run(["run", str(tmp_path / "recipe.yaml")]) in (2, 5)
    assert "Error: " in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, f'{{"a": {"9" * 5000}}}', "[]", "\udcff"])
def test_numbers_measured_before(text: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=r"evaluation\.json"):
        _json(tmp_path / "evaluation.json")


CLIENT = [kind for kind in vars(hub).values() if isinstance(kind, type) and issubclass(kind, Exception)]
SETS = [
    *kinds(datasets.exceptions.DatasetsError, pyarrow.ArrowException),
    *(
        kind("x")
        for kind in (RuntimeError, NotImplementedError, ImportError, KeyError, TypeError, AttributeError, OverflowError)
    ),
    hub.HTTPError("x"),  # type: ignore[attr-defined]  # of its HTTP client
    *SYSTEM,
]


@pytest.mark.parametrize("error", SETS, ids=lambda e: type(e).__name__)
def test_data_sets_of_the_hub(error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("datasets.load_dataset", thrower(error))
    assert run(["domains", "lint", "hf://datasets/owner/name:train"]) == 2
    assert "could not be read from the hub" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("kind", CLIENT, ids=lambda kind: kind.__name__)
def test_fetching_from_the_hub(kind: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    error = kind.__new__(kind)  # some of them want the hub's whole answer
    monkeypatch.setattr("huggingface_hub.snapshot_download", thrower(error))
    assert run(["chat", "owner/name", "--prompt", "hi", "--tokens", "1"]) in (2, 9)
    assert "Error: 'owner/name' is no folder here" in " ".join(capsys.readouterr().err.split())


TAGS = ("int", "float", "bool", "timestamp", "binary", "set", "omap", "pairs", "null", "str", "python/name:os.system")


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("value", ["''", "x", "[a]", "{a: b}"])
def test_what_yaml_is_told_to_make_of_a_value(tag: str, value: str, tmp_path: Path, capsys: Any) -> None:
    """Explicit types bring errors of every kind out of the library: a card is then unknown, a recipe refused or passed on."""
    assert isinstance(base_facts("x", f"---\nlicense: !!{tag} {value}\n---\n"), dict)
    (tmp_path / "recipe.yaml").write_text(f"find: {{model: x, seed: !!{tag} {value}}}\n")
    assert run(["run", str(tmp_path / "recipe.yaml"), "--show"]) in (0, 2)


def thrower(error: Exception) -> Any:
    def throw(*_: object, **__: object) -> None:
        raise error

    return throw


def test_an_option_of_the_wrong_kind_is_told_from_the_config_that_is_refused(
    tiny_folder: Folders, tmp_path: Path, capsys: Any
) -> None:
    """What to do fits the reason: code of its own, a model type of tomorrow, a key with another value."""
    stated = json.loads((tiny_folder("llama") / "config.json").read_text())
    for number, (change, words) in enumerate(
        [
            ({"auto_map": {"AutoConfig": "own.Config"}, "model_type": "own"}, "--trust-remote-code"),
            ({"model_type": "tomorrow"}, f"transformers {transformers.__version__}"),
            ({"dtype": "torch.bfloat16"}, "'dtype'"),
            ({"rope_parameters": {"rope_type": "dynamic"}}, "'rope_parameters'"),
            ({"rope_parameters": {"rope_type": "su", "rope_theta": 1e4}}, "'rope_parameters'"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        for file in tiny_folder("llama").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        (folder / "config.json").write_text(json.dumps(stated | change))
        assert run(["chat", str(folder), "--prompt", "hi", "--tokens", "1"]) in (0, 3)
        message = capsys.readouterr().err
        assert "Error: " not in message or words in message
        assert "install what" not in message
