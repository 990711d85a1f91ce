"""The command line, called in this process."""

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from burnish.cli.app import run


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
    """call(*arguments) -> (exit code, stdout as text or as JSON with --json, stderr)."""

    def calling(*arguments: object) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in arguments and code == 0 else out, err

    return calling
