"""Recipes: a command line from a YAML file."""

from pathlib import Path

import pytest

from burnish.cli.run import recipe_arguments
from burnish.mix import Mix
from conftest import Call, Folders, Models, fake_direction, random_enhancement
from gguf_files import enhancement as gguf_enhancement
from gguf_files import write_model


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
        f"enhance:\n  model: smollm2-135m\n  domain: {domain}\n  out: learnt\n  budget: 0.02\n  overwrite: true\n"
    )
    arguments = recipe_arguments(path)
    assert arguments == [
        "enhance",
        "smollm2-135m",
        f"--domain={Mix.parse('0.6 creative-writing - 0.2 education')}",
        "--out=learnt",
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
    path.write_text(f"find:\n  model: x\n  out: y\n  {option}\n")
    assert recipe_arguments(path) == ["find", "x", "--out=y", *flags]


@pytest.mark.parametrize("value", ["0123456", "1e10", "12e4567", "2024-01-01", "1_000", "0x10", "12:30", "~/models"])
def test_a_value_is_passed_on_as_it_is_written(value: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"find:\n  model: x\n  out: y\n  revision: {value}\n")
    assert recipe_arguments(path) == ["find", "x", "--out=y", f"--revision={value}"]


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


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in files}


FAST = ("--domain", "education", "--enhancement-factor", 0.4, "--instructions", 8, "--force", "--check-prompts", 4)


@pytest.mark.parametrize(
    "command",
    [
        ("enhance", "MODEL", *FAST),
        pytest.param(("enhance", "MODEL", *FAST, "--form", "adapter"), marks=pytest.mark.full),
        pytest.param(("enhance", "MODEL", *FAST, "--form", "enhancement"), marks=pytest.mark.full),
        ("find", "MODEL", "--domain", "education", "--instructions", 8, "--scope", "per-layer", "--force"),
        ("apply", "MODEL", "PLAN", "--strength", "0.50", "--layers", "1..2"),
        ("apply", "GGUF", "GGUF-PLAN", "--form", "gguf"),
        ("apply", "GGUF", "GGUF-PLAN", "--form", "gguf-lora"),
        pytest.param(("enhance", "MODEL", *FAST, "--page"), marks=pytest.mark.full),
        pytest.param(("train", "MODEL", "--data", "ROWS", "--steps", 2), marks=pytest.mark.full),
    ],
    ids=lambda command: " ".join(map(str, (command[0], *command[-2:]))),
)
def test_an_outputs_own_recipe_makes_it_again_byte_for_byte(
    command: tuple[object, ...], tiny_folder: Folders, tiny_model: Models, call: Call, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "What is {c}?", "completion": "{c} it is."}}\n' for c in "abcdefghijkl"))
    fake_direction(tiny_model("llama"), random_enhancement(tiny_model("llama"), 1.0).vectors[:, 0]).save(tmp_path / "d")
    gguf_enhancement().save(tmp_path / "g")
    names = {
        "MODEL": tiny_folder("llama"),
        "PLAN": tmp_path / "d",
        "ROWS": rows,
        "GGUF": write_model(tmp_path / "model.gguf"),
        "GGUF-PLAN": tmp_path / "g",
    }
    one, two = (tmp_path / f"{name}{'.gguf' * ('gguf' in command)}" for name in ("one", "two"))
    if command[-1] == "enhancement" or command[0] == "find":
        one, two = one.with_suffix(".safetensors"), two.with_suffix(".safetensors")
    code, _, err = call(*(names.get(str(word), word) for word in command), "-o", one)
    assert code == 0, err
    recipe = one / "burnish" / "recipe.yaml" if one.is_dir() else one
    again, _, err = call("run", recipe, "-o", two)
    assert again == code, err
    assert contents(one) == contents(two)


def test_an_output_without_a_recipe_says_so(call: Call, tmp_path: Path) -> None:
    gguf_enhancement().save(tmp_path / "plan.safetensors")
    code, _, err = call("run", tmp_path / "plan.safetensors", "-o", tmp_path / "out")
    assert code == 2
    assert "carries no recipe" in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("enhance: [", "is not YAML"),
        ("paint:\n  model: x\n", "must hold one command"),
        ("enhance:\n  out: x\n", "needs model"),
        ("enhance:\n  model:\n", "needs model"),
        ("enhance:\n  model: x\n  seed: 1\n  seed: 2\n", "a key is there twice"),
        ("enhance:\n  model: x\n  seed: !!int ''\n", "is not YAML"),
        ("enhance:\n  model: x\n", "needs out. Pass -o OUT"),
        ("enhance: smollm2\n", "belong options"),
        ("enhance:\n  model: x\n  out: {a: b}\n", "not a mapping"),
        ("enhance:\n  model: x\n  out:\n", "'out' has no value"),
        ("enhance:\n  model: x\n  out: y\n  dry_run: true\n  dry-run: false\n", "'dry-run' is there twice"),
        ("chat:\n  model: no\n", "'model' is False, which is no name and no path"),
        ("chat:\n  model: --help\n", "is no name and no path"),
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
