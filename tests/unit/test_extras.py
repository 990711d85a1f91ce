"""A library of an extra that is missing is an error that names the extra, before a model is looked for."""

import sys
import tomllib
from importlib.metadata import files
from pathlib import Path

import pytest

from burnish.cli.app import run
from burnish.errors import MissingExtraError
from burnish.explaining.page import render_page
from burnish.extras import EXTRAS, require
from explaining_example import minimal

NEEDED = [(extra, module) for extra, modules in EXTRAS.items() for module in modules]
NO_MODEL = "no-such-model"
COMMANDS = {
    "serve": [["serve", NO_MODEL]],
    "report": [
        ["explain", NO_MODEL, "--with", "x.safetensors", "-o", "page.html"],
        ["explain", NO_MODEL, "--with", "x.safetensors", "--publish"],
        ["enhance", NO_MODEL, "--domain", "education", "--method", "published", "--page", "-o", "out"],
    ],
    "train": [
        ["train", NO_MODEL, "--data", "rows.jsonl", "-o", "out"],
        ["enhance", NO_MODEL, "--expert", "You teach.", "--enhance", "rows.parquet", "-o", "out"],
        ["enhance", NO_MODEL, "--expert", "You teach.", "--enhance", "hf://datasets/a/b:train", "-o", "out"],
    ],
    "eval": [["evaluate", NO_MODEL, "--with", "x.safetensors", "--domain", "education", "--task", "harbour"]],
}


@pytest.mark.parametrize(("extra", "module"), NEEDED)
def test_every_module_of_an_extra_is_looked_for(extra: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require(extra, "This")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{module}, which is not installed.*'burnish\[{extra}\]'"):
        require(extra, "This")


@pytest.mark.parametrize(("extra", "command"), [(extra, command) for extra in COMMANDS for command in COMMANDS[extra]])
def test_a_command_names_the_extra_before_it_looks_for_the_model(
    extra: str,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.parquet").touch()
    for module in EXTRAS[extra]:
        monkeypatch.setitem(sys.modules, module, None)
    assert run(command) == 2
    assert f"pip install 'burnish[{extra}]'" in capsys.readouterr().err


def test_a_page_names_the_extra_that_draws_its_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(MissingExtraError, match=r"'burnish\[report\]'"):
        render_page(minimal())


def test_the_table_of_extras_is_what_the_installation_offers() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    offered = project["optional-dependencies"]
    assert set(offered) == {*EXTRAS, "all", "dev"}
    assert offered["all"] == [f"burnish[{','.join(EXTRAS)}]"]
    assert "burnish[all]" in offered["dev"]
    for extra, modules in EXTRAS.items():
        brought = {file.parts[0] for name in offered[extra] for file in files(name.split(">=")[0]) or ()}
        assert set(modules) <= brought
        assert len(modules) == len(offered[extra])
