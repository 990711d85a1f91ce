"""Long work: told of as it goes, and in steps, so that something else can be done in between."""

from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]  # yields between steps, and returns its result
Progress = Callable[[str, int, int], None]  # (what, done, total)
Advance = Callable[[int], None]  # how much more is done


def finish(steps: Steps[T]) -> T:
    """The result of work in steps, done at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def lasting(seconds: float) -> str:
    """A length of time in words: 8 s, 2 min, 1.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def advancing(progress: Progress | None, what: str, total: int) -> Advance:
    """Counts what is done and tells `progress`, if there is one."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(what, done, total)

    return advance
