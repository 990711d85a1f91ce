"""A disk that is full or read-only: an error that says so, and nothing half-written."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from burnish.artifacts.direction import Enhancement
from burnish.artifacts.files import written
from burnish.cli.app import run
from burnish.errors import DiskFullError, OutputError
from burnish.hybrid.training import _folder
from conftest import contents
from faults.test_kill import EXPLAIN, TRAIN

PAGE = 4096  # bytes: what a tmpfs counts in


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[Path]:
    """A file system of `size` bytes. Skips the test where it cannot be mounted, which takes root."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def no_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free space is not asked for, as if another program took it after it was."""
    monkeypatch.setattr("burnish.artifacts.files.shutil.disk_usage", lambda folder: SimpleNamespace(free=1 << 50))


COMMANDS: dict[str, tuple[object, ...]] = {
    **{f"apply {form}": ("apply", "base", "plan.safetensors", "--form", form) for form in ("model", "adapter", "enhancement")},
    **{f"apply {form}": ("apply", "model.gguf", "gguf-plan.safetensors", "--form", form) for form in ("gguf", "gguf-lora")},
    "find": ("find", "base", "--enhance", "enhance.txt", "--force"),
    "domains export": ("domains", "export", "education"),
    "explain": ("explain", "base", "--with", "plan.safetensors", *EXPLAIN),
    "train": ("train", "base", "--data", "rows.jsonl", *TRAIN),
}  # fmt: skip
SLOW = ("explain", "train")


def words(name: str, sources: Path, out: Path) -> list[str]:
    here = {path.name: str(path) for path in sources.iterdir()}
    return [*(here.get(str(word), str(word)) for word in COMMANDS[name]), "-o", str(out)]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] if name in SLOW else []) for name in COMMANDS]
)
def test_a_disk_that_fills_up_at_any_point_is_told_and_holds_nothing_half_written(
    name: str, sources: Path, tmp_path: Path, no_forecast: None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(sources)
    assert run(words(name, sources, tmp_path / "whole")) == 0
    files = [tmp_path / "whole"] if (tmp_path / "whole").is_file() else [*(tmp_path / "whole").rglob("*")]
    pages = sum(-(-path.stat().st_size // PAGE) for path in files if path.is_file())
    refused = 0
    for share in (0.02, 0.4, 0.8):
        with mounted(tmp_path / "disk", max(1, int(share * pages)) * PAGE) as disk:
            capsys.readouterr()
            code = run(words(name, sources, disk / "out"))
            message = capsys.readouterr().err
            assert code == DiskFullError.exit_code, message
            assert "filled up" in message
            refused += 1
            left = {path for path in contents(disk) if not path.startswith("out.training/")}
            assert left == set(), "a resumable training alone may leave something"
    assert refused == 3
    assert contents(sources) == before


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in SLOW])
def test_a_read_only_disk_is_told_before_any_work(
    name: str, sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burnish.model.model.load_model", lambda *_: pytest.fail("weights were loaded"))
    with mounted(tmp_path / "disk", 1 << 20) as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert run(words(name, sources, disk / "out")) == OutputError.exit_code
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EROFS, OutputError), (errno.EIO, OutputError), (errno.EACCES, OutputError), (errno.ENOSPC, DiskFullError)],
)
def test_a_disk_that_fails_while_writing_is_told(number: int, kind: type[OutputError], tmp_path: Path) -> None:
    with (
        pytest.raises(kind, match="Nothing was put in its place"),
        written(tmp_path / "out", overwrite=False) as partial,
    ):
        partial.write_text("half")
        raise OSError(number, os.strerror(number), str(partial))
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("what", ["store", "domain", "key", "training"])
def test_the_users_own_data_on_a_full_disk(
    what: str, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_forecast: None
) -> None:
    actions: dict[str, Callable[[Path], object]] = {
        "store": lambda disk: run(["profile", "new", "mine"]),
        "domain": lambda disk: run(["domains", "add", "mine", "--enhance", str(sources / "enhance.txt")]),
        "key": lambda disk: Enhancement.load(sources / "plan.safetensors").save(disk / "plan"),
        "training": lambda disk: _folder(disk / "out.training", "x").__enter__(),
    }
    with mounted(tmp_path / "disk", 4 * PAGE) as disk:
        (disk / "filler").write_bytes(bytes(4 * PAGE))
        monkeypatch.setenv("BURNISH_DATA", str(disk))
        monkeypatch.setattr("burnish.artifacts.cache.cache_root", lambda: disk)
        try:
            code = actions[what](disk)
        except OutputError as error:
            code = error.exit_code
        assert code == OutputError.exit_code
        remaining = ("filler", "profiles.sqlite", "out.training/")  # what is gone on with
        assert not [name for name in contents(disk) if not name.startswith(remaining)]
