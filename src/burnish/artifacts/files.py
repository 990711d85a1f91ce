"""Output paths: checked before any work, written beside their place, renamed when complete."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from burnish.errors import DiskFullError, InputError, OutputError, OutputExistsError

MARK = "burnish.json"  # in an output folder: what was done
PLAN_FILE = "burnish/enhancement.safetensors"  # in a folder: servers take every .safetensors at the top for weights
LORA_FOLDER = "burnish/lora"  # the LoRA alone, beside a sum that cannot be taken apart
TRAINED = "trained"  # what its key `burnish` says where a LoRA was trained
MARGIN = 64 * 1024 * 1024  # bytes kept free beyond what is written


def check_output(path: Path, needed: int, *, overwrite: bool, resumable: bool = False) -> None:
    """Raises OutputExistsError, DiskFullError or OutputError before anything is written. needed: bytes."""
    if path.exists() and not overwrite and not (path.is_dir() and not any(path.iterdir())):
        raise OutputExistsError(f"{path} already exists. Pass another output path, or --overwrite to replace it.")
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK) or not folder.is_dir():
        raise OutputError(f"{folder} cannot be written to. Pass an output path in a folder of yours.")
    present = _size(partial_of(path)) if resumable else 0
    free = shutil.disk_usage(folder).free
    if free < needed - present + MARGIN:
        smaller = "; the adapter form needs a few MB only" if needed > MARGIN else ""
        raise DiskFullError(
            f"{path} needs {needed - present + MARGIN:,} bytes, {MARGIN:,} of them to spare, and {folder} has {free:,} free. "
            f"Free some space or pass an output path on another disk{smaller}."
        )


def read_mark(folder: Path) -> dict[str, Any]:
    """What an output folder says of itself; empty for any other folder. Raises InputError for a damaged record."""
    path = folder / MARK
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged: it is not JSON ({error}). Write or fetch the folder again.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: it is not a table. Write or fetch the folder again.")
    return found


def is_trained(folder: Path) -> bool:
    """Whether a folder is what a training wrote. Raises InputError for a damaged record."""
    return read_mark(folder).get("burnish") == TRAINED


def overlapping(source: Path, out: Path) -> bool:
    """Whether writing `out` could touch the folder `source`: one is, holds or lies in the other."""
    one, other = source.resolve(), out.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)


def partial_of(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def publish(partial: Path, path: Path) -> None:
    """Renames a finished `.partial` into place. What stood there before goes only once the new one stands."""
    old = path.with_name(path.name + ".replaced")
    if path.exists():
        if path.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    partial.rename(path)
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns "no space left" while writing into a DiskFullError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"The disk filled up while {path} was written. Nothing was put in its place; free some space and run the "
                "same command again."
            ) from error
        raise


@contextmanager
def written(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yields a `.partial` path (a file or folder for the caller to create) and publishes it on success."""
    check_output(path, 0, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    _remove(partial)
    try:
        with disk_errors(path):
            yield partial
    except BaseException:
        _remove(partial)
        raise
    publish(partial, path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else 0
