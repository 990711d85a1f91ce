"""The only part that prints: stdout is data, stderr is talk."""

import functools
import io
import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from burnish.errors import BurnishWarning, ContextWarning
from burnish.model.processes import launched
from burnish.steps import Progress, lasting

P = ParamSpec("P")
R = TypeVar("R")
EVERY = 10.0  # seconds between two lines of progress where there is no terminal
SILENT = not launched().first  # of several processes on one job the first one speaks
stderr = Console(stderr=True, highlight=False, soft_wrap=True, quiet=SILENT)
stdout = Console(highlight=False, soft_wrap=True, quiet=SILENT)


def prepare() -> None:
    """For a process of its own: what a stream cannot encode is escaped instead of ending the work, warnings are talk, and what is written
    to a stream that is closed is lost."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  open until the end
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


def result(value: Any, lines: Iterable[str], *, json: bool) -> None:
    """A whole result, for programs as one JSON document or for people line by line."""
    if json:
        as_json(value)
        return
    for line in lines:
        data(line)


def hint(command: str) -> None:
    """The next command to try."""
    stderr.print(f"Next: {command}", style="dim", markup=False)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """While something without countable steps goes on: a spinner on a terminal, elsewhere a line every ten seconds."""
    with stderr.status(what) if stderr.is_terminal else _repeated(Tally(what=what).line):
        yield


@contextmanager
def progress() -> Iterator[Progress]:
    """Call with (what, done, total): bars on a terminal, elsewhere a line every ten seconds with share and time left."""
    if not stderr.is_terminal:
        tally = Tally()
        with _repeated(tally.line):
            yield tally.report
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=stderr, transient=False) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


@dataclass
class Tally:
    """How far countable work has come. clock: seconds."""

    clock: Callable[[], float] = time.monotonic
    what: str = "Working"
    done: int = 0
    total: int = 0
    since: float = field(init=False)
    _started: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.since = self.clock()

    def report(self, what: str, done: int, total: int) -> None:
        self.since = self._started.setdefault(what, self.clock())
        self.what, self.done, self.total = what, done, total

    def line(self) -> str:
        """Share and time left, as far as they can be known."""
        passed = self.clock() - self.since
        if not self.done or not self.total:
            return f"{self.what}: {lasting(passed)} so far"
        left = passed * (self.total - self.done) / self.done
        return (
            f"{self.what}: {self.done / self.total:.0%} ({self.done:,} of {self.total:,}), about {lasting(left)} left"
        )


@contextmanager
def _repeated(line: Callable[[], str]) -> Iterator[None]:
    """Says a line every ten seconds, from a thread of its own, so that a long step is no silence."""
    ended = threading.Event()

    def speak() -> None:
        while not ended.wait(EVERY):
            say(line())

    thread = threading.Thread(target=speak, name="burnish-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def long(command: Callable[P, R]) -> Callable[P, R]:
    """A command that says it has begun before it imports what takes seconds."""

    @functools.wraps(command)
    def begun(*arguments: P.args, **options: P.kwargs) -> R:
        say(f"burnish {command.__name__}: starting")
        return command(*arguments, **options)

    return begun
