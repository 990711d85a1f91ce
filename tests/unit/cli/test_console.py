"""Progress where nobody watches a bar."""

import threading

import pytest

from burnish.cli import console
from burnish.cli.app import run
from burnish.cli.console import Tally
from burnish.steps import lasting


def test_a_line_of_progress_holds_the_share_and_the_time_left() -> None:
    clock = iter([0.0, 10.0, 40.0, 70.0])
    tally = Tally(clock=lambda: next(clock))
    tally.report("Finding", 0, 80)  # at 10 s
    tally.report("Finding", 20, 80)  # at 40 s, which is not when it began
    assert tally.line() == "Finding: 25% (20 of 80), about 3 min left"


def test_before_anything_is_counted_the_line_says_how_long_it_has_been() -> None:
    clock = iter([0.0, 12.0])
    assert Tally(clock=lambda: next(clock)).line() == "Working: 12 s so far"


def test_times_are_told_in_a_unit_that_fits() -> None:
    assert [lasting(s) for s in (0.4, 89, 120, 7200)] == ["0 s", "89 s", "2 min", "2.0 h"]


@pytest.mark.parametrize("what", ["waiting", "progress"])
def test_without_a_terminal_lines_come_while_a_step_goes_on_and_end_with_it(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    second = threading.Event()

    def say(text: str) -> None:
        lines.append(text)
        if len(lines) == 2:
            second.set()

    monkeypatch.setattr(console, "EVERY", 0.001)
    monkeypatch.setattr(console, "say", say)
    with console.waiting("Loading") if what == "waiting" else console.progress():
        assert second.wait(30)
    assert lines[0].endswith("so far")
    assert not [thread for thread in threading.enumerate() if thread.name == "burnish-progress"]


def test_a_long_command_speaks_before_it_imports_what_takes_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The import that fails here is the command's first."""
    monkeypatch.setitem(__import__("sys").modules, "burnish.pipeline", None)
    with pytest.raises(ImportError):
        run(["chat", "MODEL"])
    assert capsys.readouterr().err == "burnish chat: starting\n"
