"""Output paths: checked before any work, written beside their place, renamed when complete."""

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from burnish.errors import DiskFullError, InputError, ModelError, OutputError, OutputExistsError

MARK = "burnish.json"  # in an output folder: what was done
PLAN_FILE = "burnish/enhancement.safetensors"  # in a folder: servers take every .safetensors at the top for weights
LORA_FOLDER = "burnish/lora"  # the LoRA alone, beside a sum that cannot be taken apart
TRAINED = "trained"  # what its key `burnish` says where a LoRA was trained
MARGIN = 64 * 1024 * 1024  # bytes kept free beyond what is written
# What the safetensors library, and torch's writer, say of a full disk: they raise errors of their own.
FULL = ("os error 28", "PytorchStreamWriter failed writing", "inline_container.cc")
LONGEST_TABLE = 100 << 20  # bytes of a JSON file: an index of a million tensors is as long
REFUSED = (  # what a path or a disk cannot do, beside being full
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EIO,
    errno.EFBIG,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EBUSY,
    errno.EXDEV,
    errno.ELOOP,
)


def check_output(path: Path, needed: int, *, overwrite: bool, resumable: bool = False) -> None:
    """Raises OutputExistsError, DiskFullError or OutputError before anything is written. needed: bytes."""
    with disk_errors(path):
        check_absent(path, overwrite=overwrite)
    place = place_of(path)
    if place.exists() and not place.is_file() and not place.is_dir():
        raise OutputError(
            f"{path} is a device or a pipe, which cannot be replaced by a file. Pass another output path."
        )
    if os.path.ismount(place):  # which, unlike Path.is_mount, Windows has in every version
        raise OutputError(
            f"{path} is where a disk is mounted, and a finished output is renamed into its place. Pass a new folder inside it, such as "
            f"{path / 'model'}."
        )
    folder = place.parent
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK) or not folder.is_dir():
        raise OutputError(f"{folder} cannot be written to. Pass an output path in a folder of yours.")
    present = stored_size(partial_of(path)) if resumable else 0
    free = shutil.disk_usage(folder).free
    if free < needed - present + MARGIN:
        smaller = "; the adapter form needs a few MB only" if needed > MARGIN else ""
        raise DiskFullError(
            f"{path} needs {needed - present + MARGIN:,} bytes, {MARGIN:,} of them to spare, and {folder} has {free:,} free. "
            f"Free some space or pass an output path on another disk{smaller}."
        )


def check_absent(path: Path, *, overwrite: bool) -> None:
    """Raises OutputExistsError for an output that is there and may not be replaced."""
    if path.exists() and not overwrite and not _is_empty_folder(path):
        raise OutputExistsError(f"{path} already exists. Pass another output path, or --overwrite to replace it.")


def _is_empty_folder(path: Path) -> bool:
    try:
        return not os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):  # a file, or gone since
        return False


def read_table(path: Path) -> dict[str, Any]:
    """A JSON file that holds a table. Raises ModelError for anything else, also for one too long or too deep to be one."""
    try:
        if path.stat().st_size > LONGEST_TABLE:
            raise ValueError(f"{path.stat().st_size:,} bytes are more than {LONGEST_TABLE:,}")
        table = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(table, dict):
            raise ValueError("it is not a table")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {str(error)[:200]}. Download or write it again.") from error
    return table


def read_mark(folder: Path) -> dict[str, Any]:
    """What an output folder says of itself; empty for any other folder. Raises ModelError for a damaged record."""
    mark = folder / MARK
    return read_table(mark) if mark.is_file() else {}


def is_trained(folder: Path) -> bool:
    """Whether a folder is what a training wrote. Raises ModelError for a damaged record."""
    return read_mark(folder).get("burnish") == TRAINED


def overlapping(source: Path, out: Path) -> bool:
    """Whether writing `out` could touch the folder `source`: one is, holds or lies in the other."""
    one, other = source.resolve(), out.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)


def place_of(path: Path) -> Path:
    """Where an output really lies: a link is followed, so that it stays and its target is written. Raises OutputError for a circle, and
    for a path that ends in no name (`.`, `..`, `/`)."""
    if path.name in ("", ".."):
        raise OutputError(f"'{path}' is no name for an output. Pass the path of a new file or folder.")
    if path.suffix == ".partial":
        raise OutputError(
            f"{path} ends as outputs do that are not finished, and would not be read again. Pass another name."
        )
    place = Path(os.path.realpath(path)) if path.is_symlink() else path
    if place.is_symlink():
        raise OutputError(f"{path} is a link that leads in a circle. Remove it, or pass another output path.")
    return place


def partial_of(path: Path) -> Path:
    place = place_of(path)
    return place.with_name(place.name + ".partial")


def refuse_partial(path: Path) -> None:
    """Raises InputError for an output that was not finished, so that it is never read as a whole one."""
    if path.suffix == ".partial":
        raise InputError(
            f"{path} is an output that was not finished. Run the command that was writing it again, or pass the finished output."
        )


def _replaced(path: Path) -> Path:
    """Where an output waits that is being replaced."""
    return path.with_name(path.name + ".replaced")


@contextmanager
def claimed(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds an output for this process alone. Raises OutputError while another one writes it, unless told to wait for its end.

    The operating system takes the claim back from a killed process, so that what it left can be gone on with. What the holder
    says of itself is in the lock file, which goes with the claim; on Windows a locked file cannot be read, and the error names
    no process. A file system without locks (some network ones) is not protected.
    """
    path = place_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    name = partial_of(path).with_name(partial_of(path).name + ".lock")
    lock = FileLock(name)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise OutputError(
            f"Another run is writing {path}{_holder(name)}. Wait until it is done, or pass another output path; nothing was changed."
        ) from error
    try:
        with suppress(OSError):  # it only serves the message
            name.write_text(f" (process {os.getpid()}, since {datetime.now():%Y-%m-%d %H:%M:%S})", encoding="utf-8")
        if _replaced(path).exists() and not path.exists():
            _replaced(path).rename(path)  # a run was killed between the two renames of `publish`
        yield
    finally:
        with suppress(PermissionError):
            name.unlink(missing_ok=True)
        lock.release()


def _holder(lock: Path) -> str:
    try:
        return lock.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # just gone, or locked against reading too
        return ""


def publish(partial: Path, path: Path) -> None:
    """Renames a finished `.partial` into place. What stood there before goes only once the new one stands."""
    path = place_of(path)
    if path.is_file() and partial.is_file():
        partial.replace(path)  # in one step
        remove(_replaced(path))
        return
    old = _replaced(path)
    if path.exists() or path.is_symlink():
        remove(old)
        path.rename(old)
    partial.rename(path)
    remove(old)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what a disk refuses while writing into a DiskFullError or an OutputError."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or (number is None and any(word in str(error) for word in FULL)):
            raise DiskFullError(
                f"The disk filled up while {path} was written. Nothing was put in its place; free some space and run the "
                "same command again."
            ) from error
        if number in REFUSED:
            raise OutputError(
                f"{path} cannot be written: {error}. Nothing was put in its place; pass an output path that can be written."
            ) from error
        raise


@contextmanager
def written(path: Path, *, overwrite: bool, wait: bool = False) -> Iterator[Path]:
    """Yields a `.partial` path (a file or folder for the caller to create) and publishes it on success.

    wait: for another process that writes the same output, instead of an error (for what both would write alike).
    """
    check_output(path, 0, overwrite=overwrite)
    partial = partial_of(path)
    with disk_errors(path), claimed(path, wait=wait):
        check_absent(path, overwrite=overwrite)  # another run may have finished since
        remove(partial)
        try:
            yield partial
        except BaseException:
            remove(partial)
            raise
        publish(partial, path)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all that is in it; nothing to remove is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def stored_size(path: Path) -> int:
    """The bytes of a file, or of all files in a folder; 0 for what is not there, or is renamed or removed by another run meanwhile."""
    files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names] if path.is_dir() else [path]
    total = 0
    for file in files:
        with suppress(FileNotFoundError, NotADirectoryError):
            status = file.stat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total
