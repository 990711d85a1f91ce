"""Nothing is half-written, nothing is silently lost."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from burnish.artifacts.copying import copy_file
from burnish.artifacts.files import check_output, overlapping, publish, written
from burnish.errors import DiskFullError, OutputError, OutputExistsError


@pytest.mark.parametrize("old", [None, "old"])
def test_a_failed_write_leaves_what_was_there(old: str | None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if old is not None:
        out.write_text(old)
    with pytest.raises(RuntimeError), written(out, overwrite=True) as partial:
        partial.mkdir()
        (partial / "half").write_text("half")
        raise RuntimeError
    assert {path: path.read_text() for path in tmp_path.iterdir()} == ({} if old is None else {out: old})


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_publishing_replaces_what_stood_there(tmp_path: Path, kind: str) -> None:
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    for path, text in ((out, "old"), (partial, "new")):
        if kind == "folder":
            path.mkdir()
            path = path / "file"
        path.write_text(text)
    publish(partial, out)
    assert (out / "file" if kind == "folder" else out).read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]


def test_an_existing_output_is_refused_unless_it_is_an_empty_folder(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "deep", 0, overwrite=False)
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty", 0, overwrite=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        check_output(tmp_path / "file", 0, overwrite=False)
    check_output(tmp_path / "file", 0, overwrite=True)


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    for name in ("out", "out/file"):
        link = tmp_path / name.replace("/", "-")
        link.symlink_to(tmp_path / "disk" / name.replace("/", "-"))
        with written(link, overwrite=False) as partial:
            assert partial.parent == tmp_path / "disk"
            partial.mkdir()
            (partial / "new").write_text("x")
        assert link.is_symlink()
        assert (link.resolve() / "new").read_text() == "x"
        with written(link, overwrite=True) as partial:
            partial.write_text("a file now")
        assert link.is_symlink()
        assert link.read_text() == "a file now"
        assert {p.name for p in tmp_path.iterdir() if p.suffix == ".partial"} == set()


def test_the_disk_behind_a_link_is_the_one_that_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "deep" / "out")
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: asked.append(folder) or SimpleNamespace(free=1 << 40))
    check_output(tmp_path / "out", 0, overwrite=False)
    assert asked == [tmp_path / "disk"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        *((path, "is no name") for path in ("", ".", "..", "/", "a/..")),
        ("file/out", "cannot be written to"),
        ("pipe", "a device or a pipe"),
        ("loop", "a link that leads in a circle"),
        ("disk", "a new folder inside it"),
        ("out.partial", "that are not finished"),
    ],
)
def test_what_cannot_be_an_output_is_refused(
    path: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: path.name == "disk")
    with pytest.raises(OutputError, match=why):
        check_output(tmp_path / path if why != "is no name" else Path(path), 0, overwrite=True)
    check_output(tmp_path / "disk" / "model", 0, overwrite=False)


def test_a_full_disk_is_seen_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100 << 20))
    check_output(tmp_path / "out", 30 << 20, overwrite=False)
    with pytest.raises(DiskFullError, match="104,857,600 free"):
        check_output(tmp_path / "out", 50 << 20, overwrite=False)


def test_overlapping_folders(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (tmp_path / "link").symlink_to(model)
    assert all(overlapping(model, p) for p in (model, model / "out", tmp_path, tmp_path / "link", model / "." / "x"))
    assert not overlapping(model, tmp_path / "model-enhanced")


def test_a_system_without_copies_inside_the_kernel_copies_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.copy_file_range", raising=False)
    (tmp_path / "source").write_bytes(bytes(range(256)) * 100)
    copy_file(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()
