"""A background copy of a model folder into its `.partial` place, with a journal of what is finished.

Needs no torch, so that `burnish apply` can start copying while torch is still being loaded. The journal makes a killed
run resumable: files are skipped when the same source was copied whole, and edits when they belong to the same recipe.
"""

import functools
import json
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from burnish.artifacts.files import claimed, partial_of, remove
from burnish.artifacts.safetensors_header import read_header
from burnish.artifacts.weight_files import is_other_form, weight_files
from burnish.errors import ModelError

JOURNAL = ".burnish-journal.json"
BLOCK = 256 << 20  # bytes a kernel copy moves at a time


def model_files(folder: Path) -> list[Path]:
    """Everything in a model folder but version control and caches.

    Raises ModelError for a link that leads out of the folder, because a copy of it would publish a file that is none of the
    model's. Weights may lie elsewhere, and so may the files of the hub's cache, whose folders consist of links.
    """
    files = sorted(
        p
        for p in folder.rglob("*")
        if p.is_file() and not any(part in (".git", ".cache", "__pycache__") for part in p.relative_to(folder).parts)
    )
    home = folder.resolve()
    homes = [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    for path in files:
        target = path.resolve()
        if any(target.is_relative_to(home_folder) for home_folder in homes):
            continue
        if path.suffix != ".safetensors":
            raise ModelError(
                f"{path} is a link to {target}, outside the model's folder, and a copy would hold that file. Put the file itself there "
                "(cp --dereference), or remove the link."
            )
        read_header(folder, path.relative_to(folder).as_posix())
    return files


def copied_files(folder: Path) -> list[Path]:
    """The files of a model folder that a copy holds. Raises ModelError as `model_files` and `weight_files`."""
    left = {folder / name for name in left_out(folder)}
    return [path for path in model_files(folder) if path not in left]


def copied_bytes(folder: Path) -> int:
    """What a copy takes on the disk. Raises ModelError as `copied_files`."""
    return sum(path.stat().st_size for path in copied_files(folder))


def left_out(folder: Path) -> list[str]:
    """The files that a copy does without, sorted: the same weights in other forms, which an edit would not reach, so that a program
    that reads them would run the model as it was."""
    weights = weight_files(folder)
    names = [path.relative_to(folder).as_posix() for path in model_files(folder)]
    return [name for name in names if is_other_form(name, weights)]


@dataclass
class Journal:
    """What of a partial output is finished."""

    path: Path
    source: str
    recipe: str | None  # hash of what is written into the copy; None while there are only copies
    done: dict[str, Any] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock)

    @staticmethod
    def open(partial: Path, source: Path) -> "Journal":
        """Continues a partial output of the same source, else starts a clean one."""
        path = partial / JOURNAL
        journal = Journal(path, str(source.resolve()), None)
        if path.is_file():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                if record["source"] == journal.source:
                    return Journal(path, journal.source, record["recipe"], dict(record["done"]))
            except (ValueError, KeyError, TypeError, RecursionError):
                pass  # damaged, as after a power cut: nothing of it is believed
        journal.restart()
        return journal

    def restart(self) -> None:
        """Forgets and removes what is there."""
        remove(self.path.parent)
        self.path.parent.mkdir(parents=True)
        self.recipe, self.done = None, {}
        self._write()

    def mark(self, item: str, value: Any) -> None:
        with self.lock:
            self.done[item] = value
            self._write()

    def _write(self) -> None:
        temporary = self.path.with_suffix(".new")
        record = {"source": self.source, "recipe": self.recipe, "done": self.done}
        temporary.write_text(json.dumps(record), encoding="utf-8")
        temporary.replace(self.path)


class FolderCopy:
    """Copies `source` to the `.partial` of `out` in a thread, telling how far each file has come.

    As a context manager it stops the copy on an error and removes the partial output, unless the error is an interrupt: that
    one is to be resumed. The output is claimed for this process from the beginning. Raises OutputError while another run writes
    it.
    """

    def __init__(self, source: Path, out: Path) -> None:
        self.source = source
        self.out = out
        self.partial = partial_of(out)
        with ExitStack() as claim:
            claim.enter_context(claimed(out))
            claim.push(self._discard)
            self.journal = Journal.open(self.partial, source)
            self._claim = claim.pop_all()  # until the exit
        self._moved = threading.Condition()
        self._reached: dict[str, int] = {}
        self._stopped = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "FolderCopy":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._claim.__exit__(kind, error, trace)

    def _discard(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Exception):
            shutil.rmtree(self.partial, ignore_errors=True)

    def start(self) -> None:
        """Begins copying, unless it has begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="burnish-copy")
            self._thread.start()

    def claim(self, recipe: str) -> None:
        """Says what will be written into the copy. What another recipe wrote there is thrown away."""
        if self.journal.recipe not in (None, recipe):
            assert self._thread is None, "a copy of another recipe's output must not be started before it is claimed"
            self.journal.restart()
        self.journal.recipe = recipe

    def wait_for(self, file: str, end: int) -> bool:
        """Returns once the first `end` bytes of `file` are in place; False when the copy has stopped before."""
        with self._moved:
            self._moved.wait_for(lambda: self._stopped or self._reached.get(file, 0) >= end)
            return self._reached.get(file, 0) >= end

    def finish(self) -> None:
        """Waits for the last byte. Raises what stopped the copy."""
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self._tell_end()
        if self._thread is not None:
            self._thread.join()

    def _tell_end(self) -> None:
        with self._moved:
            self._stopped = True
            self._moved.notify_all()

    def _run(self) -> None:
        try:
            for path in copied_files(self.source):
                self._copy(path, path.relative_to(self.source).as_posix())
        except (OSError, ModelError) as error:
            self._error = error
        finally:
            self._tell_end()

    def _copy(self, path: Path, name: str) -> None:
        status = path.stat()
        identity = [status.st_size, status.st_mtime_ns]
        if self.journal.done.get(f"copy {name}") != identity:
            target = self.partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(path, target, functools.partial(self._report, name))
            self.journal.mark(f"copy {name}", identity)
        self._report(name, status.st_size)

    def _report(self, file: str, reached: int) -> None:
        with self._moved:
            if self._stopped:
                raise InterruptedError("the copy was stopped")
            self._reached[file] = reached
            self._moved.notify_all()


def copy_file(source: Path, target: Path, report: Callable[[int], None] = lambda reached: None) -> None:
    """Copies inside the kernel where it can (Linux; a clone where the file system can), following links; the copy is writable."""
    in_kernel = getattr(os, "copy_file_range", None)
    with source.open("rb") as reader, target.open("wb") as writer:
        size = left = os.fstat(reader.fileno()).st_size
        while left:
            try:
                moved = in_kernel(reader.fileno(), writer.fileno(), min(BLOCK, left)) if in_kernel else 0
            except OSError:
                if left != size:
                    raise
                moved = 0
            if moved == 0:
                shutil.copyfileobj(reader, writer, BLOCK)
                return
            left -= moved
            report(size - left)
