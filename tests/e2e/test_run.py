"""Recipes: a command line from a YAML file."""

from pathlib import Path

import pytest

from burnish.cli.run import recipe_arguments
from burnish.mix import Mix
from conftest import Call, Folders


@pytest.mark.parametrize(
    "domain",
    [
        "0.6 creative-writing - 0.2 education",
        "{creative-writing: 0.6, education: -0.2}",
        "[creative-writing=0.6, education=-0.2]",
    ],
)
def test_a_mix_reads_the_same_in_every_form(domain: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"tune:\n  model: smollm2-135m\n  domain: {domain}\n  out: tuned\n  budget: 0.02\n  overwrite: true\n"
    )
    arguments = recipe_arguments(path)
    assert arguments == [
        "tune",
        "smollm2-135m",
        f"--domain={Mix.parse('0.6 creative-writing - 0.2 education')}",
        "--out=tuned",
        "--budget=0.02",
        "--overwrite",
    ]


@pytest.mark.parametrize(
    ("option", "flags"),
    [
        ("layer_by_layer: false", ["--no-layer-by-layer"]),
        ("layer_by_layer: true", ["--layer-by-layer"]),
        ("force: false", []),  # off unless it is passed
        ("force: on", ["--force"]),
        ("forse: false", ["--forse"]),  # the command refuses it by name
    ],
)
def test_yes_and_no_are_passed_on(option: str, flags: list[str], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"find:\n  model: x\n  {option}\n")
    assert recipe_arguments(path) == ["find", "x", *flags]


def test_a_recipe_runs_its_command(tiny_folder: Folders, call: Call, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    out = tmp_path / "out"
    path.write_text(
        f"enhance:\n  model: {tiny_folder('llama')}\n  domain: education\n  enhancement_factor: 0.4\n  force: true\n"
        f"  check_prompts: 0\n  form: enhancement\n  out: {out}\n"
    )
    assert call("run", path, "--show")[1].startswith("burnish enhance ")
    code, _, err = call("run", path)
    assert code == 0, err
    assert out.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("enhance: [", "is not YAML"),
        ("paint:\n  model: x\n", "must hold one command"),
        ("enhance:\n  out: x\n", "needs model"),
        ("enhance: smollm2\n", "belong options"),
        ("enhance:\n  model: x\n  out: {a: b}\n", "not a mapping"),
        ("enhance:\n  model: x\n  out:\n", "'out' has no value"),
        ("enhance:\n  model: x\n  out: no\n", "'out' is false, and it takes a value"),
    ],
)
def test_what_is_no_recipe_is_refused(text: str, words: str, call: Call, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    code, _, err = call("run", path)
    assert code == 2
    assert words in " ".join(err.split())
    assert "does not exist" in call("run", tmp_path / "none.yaml")[2]
