"""Two runs into the same output at the same time: one wins cleanly, the other says why."""

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from burnish.artifacts.cache import cached
from burnish.artifacts.copying import FolderCopy
from burnish.artifacts.files import claimed, publish, stored_size, written
from burnish.errors import BurnishError, InputError, OutputError, OutputExistsError
from burnish.hybrid.training import _folder
from burnish.model.model import load
from burnish.model.source import resolve
from burnish.options import ModelOptions, OutputOptions
from burnish.pipeline import apply, open_plan, read_enhancement
from conftest import Folders, contents, random_enhancement
from faults.children import ended, kill, started

FLOAT = ModelOptions(dtype="float32")
FORKED = multiprocessing.get_context("fork")


@contextmanager
def holding(path: Path) -> Iterator[tuple[int, Callable[[], None]]]:
    """Another process that is in the middle of writing `path`: (its number, a call that lets it go on to the end)."""
    begun, goes_on = FORKED.Event(), FORKED.Event()

    def hold() -> None:
        with written(path, overwrite=True) as partial:
            partial.write_text("theirs")
            begun.set()
            goes_on.wait(60)

    process = started(hold)
    assert begun.wait(60)
    yield process, goes_on.set


def test_the_second_run_says_who_writes_and_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with holding(out) as (process, go_on):
        with (
            pytest.raises(OutputError, match=rf"Another run is writing .*process {process}, since 20"),
            written(out, overwrite=True),
        ):
            pytest.fail("two runs are writing")
        assert not out.exists()
        go_on()
        assert ended(process) == 0
    assert out.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [out]


def test_a_killed_run_gives_its_claim_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with holding(out) as (process, _):
        kill(process)
    with written(out, overwrite=False) as partial:
        assert not partial.exists()
        partial.write_text("ours")
    assert contents(tmp_path) == {"out": b"ours"}


def test_a_copy_holds_its_output_until_the_end(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "model.safetensors").write_text("a")
    with FolderCopy(source, out) as copy:
        copy.start()
        copy.finish()
        with pytest.raises(OutputError, match=f"process {os.getpid()}"):
            FolderCopy(source, out)
        assert (copy.partial / "model.safetensors").read_text() == "a"
        with pytest.raises(OutputError, match="Another run"), written(out, overwrite=True):
            pytest.fail("two runs are writing")
    with claimed(out):
        pass


def test_a_size_is_read_while_another_run_removes_and_renames(tmp_path: Path) -> None:
    for attempt in range(20):
        folder = tmp_path / f"out-{attempt}"
        for name in range(50):
            (folder / f"{name}").mkdir(parents=True)
            (folder / f"{name}" / "file").write_bytes(b"12")

        def vanish(folder: Path = folder) -> None:
            folder.rename(folder.with_suffix(".moved"))
            shutil.rmtree(folder.with_suffix(".moved"))

        assert stored_size(folder) == 100
        child = started(vanish)
        while folder.exists():
            assert 0 <= stored_size(folder) <= 100
        assert stored_size(folder) == 0
        assert ended(child) == 0


def test_many_bakings_at_once_leave_one_whole_model(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = tiny_folder("llama")
    plan, model = open_plan(folder, FLOAT), load(folder, FLOAT)
    _ = plan.anatomy

    def bake(factor: float, out: Path) -> None:
        apply(plan, random_enhancement(model, factor), OutputOptions(out=out), name=str(folder))

    factors = (0.2, 0.4, 0.6)
    for number, factor in enumerate(factors):
        bake(factor, tmp_path / f"alone-{number}")
    wholes = [contents(tmp_path / f"alone-{number}") for number in range(len(factors))]
    for attempt in range(3):
        out = tmp_path / f"out-{attempt}"
        children = [started(lambda f=factor, out=out: bake(f, out)) for factor in factors]  # type: ignore[misc]
        codes = [ended(child) for child in children]
        assert sorted(codes) == [0, OutputError.exit_code, OutputError.exit_code]
        assert contents(out) == wholes[codes.index(0)]
        assert not list(tmp_path.glob(f"{out.name}.*"))


def test_what_both_would_write_alike_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burnish.artifacts.cache.cache_root", lambda: tmp_path)
    children = [started(lambda: int(cached("kind", {"a": 1}, lambda: [1] * 20_000) != [1] * 20_000)) for _ in range(6)]
    assert {ended(child) for child in children} == {0}
    assert cached("kind", {"a": 1}, lambda: pytest.fail("not kept")) == [1] * 20_000
    assert [p.suffix for p in (tmp_path / "kind").iterdir()] == [".json"]


def test_two_trainings_never_share_their_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "out.training"
    with (
        _folder(folder, "same"),
        pytest.raises(OutputError, match="Another run"),
        _folder(folder, "same"),
    ):
        pytest.fail("two trainings")
    with _folder(folder, "same"):
        assert [p.name for p in folder.iterdir()] == ["burnish.json"]


def test_a_training_killed_before_it_was_named_is_begun_again(tmp_path: Path) -> None:
    folder = tmp_path / "out.training"
    folder.mkdir()
    (folder / "burnish.json.partial").write_text('{"ident')
    with _folder(folder, "same"):
        assert (folder / "burnish.json").exists()


def test_a_run_killed_between_the_two_renames_gives_the_old_output_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    for folder, text in ((out, "old"), (partial, "new")):
        folder.mkdir()
        (folder / "file").write_text(text)
    with monkeypatch.context() as patch:
        rename = Path.rename
        patch.setattr(Path, "rename", lambda self, to: rename(self, to) if self == out else os._exit(7))
        assert ended(started(lambda: publish(partial, out))) == 7
    assert not out.exists()
    with pytest.raises(OutputExistsError), written(out, overwrite=False):
        pytest.fail("the old output is there")
    assert contents(out) == {"file": b"old"}


def test_a_partial_of_the_other_kind_is_in_nobodys_way(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "model.safetensors").write_text("a")
    (tmp_path / "out.partial").write_text("a file that another form left")
    with FolderCopy(source, out) as copy:
        copy.start()
        copy.finish()
        assert (copy.partial / "model.safetensors").read_text() == "a"
    with written(out, overwrite=False) as partial:
        partial.write_text("a file again")
    assert out.read_text() == "a file again"


@pytest.mark.parametrize("journal", [b"", b"{", b"[]", b'{"source": 3}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_journal_is_not_believed(journal: bytes, tmp_path: Path) -> None:
    source, partial = tmp_path / "source", tmp_path / "out.partial"
    source.mkdir()
    partial.mkdir()
    (source / "model.safetensors").write_text("a")
    (partial / "model.safetensors").write_text("b")
    (partial / ".burnish-journal.json").write_bytes(journal)
    with FolderCopy(source, tmp_path / "out") as copy:
        assert not (partial / "model.safetensors").exists()
        copy.start()
        copy.finish()
        assert (partial / "model.safetensors").read_text() == "a"


def test_an_unfinished_output_is_never_taken_for_a_model_or_a_plan(tiny_folder: Folders, tmp_path: Path) -> None:
    (tmp_path / "out.partial").symlink_to(tiny_folder("llama"))
    for name in ("out.partial", "plan.safetensors.partial"):
        (tmp_path / name).touch()
        for read in (resolve, lambda path: read_enhancement(path, None, "all")):
            with pytest.raises(InputError, match="not finished"):
                read(tmp_path / name)


def test_every_error_of_a_claim_is_one_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file" / "out", tmp_path / ("n" * 250), tmp_path / ("m" * 300)):
        with pytest.raises(BurnishError), written(out, overwrite=True) as partial:
            partial.write_text("x")
    assert contents(tmp_path) == {"file": b"x"}
