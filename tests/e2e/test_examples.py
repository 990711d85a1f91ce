"""The scripts and the notebook in examples/: every command is one that the command line takes."""

import ast
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import burnish
from burnish.cli.app import app
from conftest import Folders

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.sh"))
RECORDER = """#!/bin/sh
printf '%s\\037' "$@" >> "$RECORD"
printf '\\036' >> "$RECORD"
echo model.gguf
"""


@pytest.fixture
def commands(tmp_path: Path) -> Callable[..., list[list[str]]]:
    """commands(script, EXTRA=...): the arguments of each `burnish` that it starts; what else it needs does nothing."""
    for name in ("burnish", "llama-cli", "llama-server", "vllm", "curl", "sleep"):
        program = tmp_path / name
        program.write_text(RECORDER if name == "burnish" else "#!/bin/sh\n")
        program.chmod(0o755)

    def started(script: str, **settings: str) -> list[list[str]]:
        record = tmp_path / "record"
        record.write_text("")
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        place = {"PATH": path, "RECORD": str(record), "OUT": str(tmp_path / "out"), "HOME": str(tmp_path)}
        done = subprocess.run(["bash", EXAMPLES / script], env=place | settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [line.split("\037")[:-1] for line in record.read_text().split("\036")[:-1]]

    return started


def parsed(arguments: list[str]) -> None:
    """Raises what the command line says of wrong arguments."""
    app.parse_args(arguments, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_of_a_script_is_one(script: str, commands: Callable[..., list[list[str]]]) -> None:
    listed = commands(script)
    assert any(arguments[0] == "enhance" for arguments in listed)
    for arguments in listed:
        parsed(arguments)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_of_a_script_writes_no_model(script: str, commands: Callable[..., list[list[str]]]) -> None:
    writing = [a for a in commands(script, EXTRA="--dry-run") if a[0] in ("enhance", "find", "apply")]
    assert writing and all("--dry-run" in arguments for arguments in writing)
    for arguments in writing:
        parsed(arguments)


def test_the_rows_of_a_folder_of_texts_are_what_learning_takes(
    commands: Callable[..., list[list[str]]], tiny_folder: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    from burnish.cli.app import run

    (arguments,) = commands("house_style.sh", EXTRA="--dry-run", MODEL=str(tiny_folder("llama")))
    assert run(arguments) == 0, capsys.readouterr().err


def cells(kind: str) -> Iterator[str]:
    notebook: dict[str, Any] = json.loads((EXAMPLES / "burnish.ipynb").read_text(encoding="utf-8"))
    return ("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind)


def test_every_command_and_name_of_the_notebook_is_one() -> None:
    code = list(cells("code"))
    lines = [line[1:] for cell in code for line in cell.splitlines() if line.startswith("!")]
    assert len(lines) >= 5
    for line in lines:
        arguments = shlex.split(re.sub(r"\{\w+\}", "words", line))
        assert arguments.pop(0) == "burnish"
        parsed(arguments)
    for cell in code:
        tree = ast.parse("\n".join(line for line in cell.splitlines() if line[:1] not in ("!", "%")))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "burnish":
                assert hasattr(burnish, node.attr)
    assert any("burnish.load" in cell for cell in code)


def test_the_page_names_every_example() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in EXAMPLES.iterdir()} - {"README.md", "house_style.py"}
    assert names <= set(re.findall(r"\(([\w.]+)\)", page))
