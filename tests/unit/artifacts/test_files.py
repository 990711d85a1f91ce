"""Nothing is half-written, nothing is silently lost."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from burnish.artifacts.copying import copy_file
from burnish.artifacts.files import check_output, overlapping, publish, written
from burnish.errors import DiskFullError, OutputError, OutputExistsError


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), written(tmp_path / "out", overwrite=False) as partial:
        partial.mkdir()
        (partial / "half").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_overwrite_keeps_the_old_output(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    out.write_text("old")
    with pytest.raises(RuntimeError), written(out, overwrite=True) as partial:
        partial.write_text("new")
        raise RuntimeError
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


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


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written to"):
        check_output(tmp_path / "file" / "out", 0, overwrite=False)


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


def test_a_mounted_disk_is_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.ismount", lambda path: path == tmp_path)
    with pytest.raises(OutputError, match="a new folder inside it"):
        check_output(tmp_path, 0, overwrite=False)
    check_output(tmp_path / "model", 0, overwrite=False)


@pytest.mark.parametrize("path", ["", ".", "..", "/", "a/.."])
def test_an_output_without_a_name_is_refused(path: str) -> None:
    with pytest.raises(OutputError, match="is no name"):
        check_output(Path(path), 0, overwrite=True)


def test_a_pipe_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="a device or a pipe"), written(tmp_path / "pipe", overwrite=True):
        pass
    assert (tmp_path / "pipe").is_fifo()


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match="loop"):
        check_output(tmp_path / "loop", 0, overwrite=False)


def test_a_full_disk_is_seen_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100 << 20))
    check_output(tmp_path / "out", 30 << 20, overwrite=False)
    with pytest.raises(DiskFullError, match="104,857,600 free"):
        check_output(tmp_path / "out", 50 << 20, overwrite=False)


def test_a_disk_that_fills_up_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="filled up"), written(tmp_path / "out", overwrite=False) as partial:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


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
