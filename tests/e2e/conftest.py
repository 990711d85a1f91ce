"""The command line, called in this process."""

import json
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from burnish.cli.app import run


def cut(arguments: Sequence[object]) -> list[str]:
    """Words of a command line: a text that begins with a flag and holds more is cut as a shell does."""
    texts = map(str, arguments)
    return [word for text in texts for word in (shlex.split(text) if text.startswith("-") and " " in text else [text])]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes that are started here take Ctrl-C, also where the tests run in the background, whose jobs ignore it and hand that on."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights must not be loaded."""
    monkeypatch.setattr("burnish.model.model.load_model", lambda *_: pytest.fail("weights were loaded"))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """call(*arguments) -> (exit code, stdout as text or as JSON with --json, stderr). A text of several flags is cut into them."""

    def calling(*arguments: object) -> tuple[int, Any, str]:
        capsys.readouterr()
        words = cut(arguments)
        code = run(words)
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in words and code == 0 else out, err

    return calling
