"""Whatever the terminal, the pipe or the path: the result comes out, or it is said why not. In processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from burnish.cli.app import run

COMMAND = [sys.executable, "-m", "burnish"]


def started(*arguments: object, folder: Path, **settings: str) -> "subprocess.CompletedProcess[bytes]":
    environment = {**os.environ, "BURNISH_DATA": str(folder / "data"), "COLUMNS": "500", **settings}
    line = [part if isinstance(part, bytes) else str(part) for part in arguments]
    return subprocess.run([*COMMAND, *line], capture_output=True, env=environment, cwd=folder, check=False)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8", "utf-16"])
def test_json_reads_back_in_every_encoding_of_the_output(encoding: str, tmp_path: Path) -> None:
    done = started("domains", "show", "creative-writing-ko", "--json", folder=tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    expected = started("domains", "show", "creative-writing-ko", "--json", folder=tmp_path, PYTHONIOENCODING="utf-8")
    assert json.loads(done.stdout.decode(encoding)) == json.loads(expected.stdout)


def test_words_that_a_terminal_cannot_show_do_not_end_the_work(tmp_path: Path) -> None:
    done = started("domains", "show", "creative-writing-ko", folder=tmp_path, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert rb"\u" in done.stdout


def test_a_reader_that_leaves_ends_the_command_without_a_word(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, "domains", "list", "--json"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_stream_that_is_closed_does_not_end_the_work(stream: int, tmp_path: Path) -> None:
    settings = {"BURNISH_DATA": str(tmp_path / "data"), **os.environ}
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {stream}>&-', "sh", *COMMAND, "domains", "list", "--json"],
        capture_output=True,
        env=settings,
        check=False,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert bool(done.stdout) == (stream != 1)


def test_an_argument_with_a_null_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["domains", "lint", "a\0b.txt"]) == 2  # no terminal passes one, a recipe can
    assert "null character" in capsys.readouterr().err


def test_an_argument_that_is_no_text_is_refused(tmp_path: Path) -> None:
    done = started("domains", "lint", b"/tmp/\xff.txt", folder=tmp_path)
    assert done.returncode == 2
    assert b"no UTF-8" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_output_is_said(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, "domains", "list"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 5
    assert b"Error: " in done.stderr
    assert b"Traceback" not in done.stderr
