"""The only part that prints: stdout is data, stderr is talk."""

import io
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from burnish.errors import BurnishWarning, ContextWarning
from burnish.model.processes import launched

SILENT = not launched().first  # of several processes on one job the first one speaks
stderr = Console(stderr=True, highlight=False, soft_wrap=True, quiet=SILENT)
stdout = Console(highlight=False, soft_wrap=True, quiet=SILENT)


def prepare() -> None:
    """For a process of its own: what a stream cannot encode is escaped instead of ending the work, and warnings are talk."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _say_warning


def _say_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    ours = issubclass(category, BurnishWarning | ContextWarning)
    say(f"Note: {message}" if ours else f"Note ({category.__name__}): {message}")


def say(text: str) -> None:
    """Talk."""
    stderr.print(text, markup=False)


def data(text: str) -> None:
    """One line of result."""
    stdout.print(text, markup=False)


def drawn(renderable: Any) -> None:
    """A table or another of rich's drawings as a result."""
    stdout.print(renderable)


def as_json(value: Any) -> None:
    """The whole result as one JSON document, in ASCII where the stream takes no more."""
    if not SILENT:
        plain = not (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
        sys.stdout.write(json.dumps(value, ensure_ascii=plain, indent=2, default=str) + "\n")


def hint(command: str) -> None:
    """The next command to try."""
    stderr.print(f"Next: {command}", style="dim", markup=False)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner on a terminal while something without countable steps goes on."""
    with stderr.status(what):
        yield


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on stderr: call with (what, done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=False) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report
