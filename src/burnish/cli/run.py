"""`burnish run`: a command and its options from a YAML recipe."""

from pathlib import Path
from typing import Annotated, Any

import yaml
from cyclopts import Parameter

from burnish.cli import console
from burnish.errors import InputError
from burnish.mix import Mix

COMMANDS = ("enhance", "find", "tune", "apply", "verify", "evaluate", "chat", "train")
SUBJECTS = dict.fromkeys(COMMANDS, ("model",)) | {"apply": ("model", "plan-file"), "verify": ("base", "enhanced")}


def run_recipe(
    recipe: Annotated[Path, Parameter(help="YAML file: one command, and below it its options by their names")],
    *,
    show: Annotated[bool, Parameter(help="print the command line instead of running it", negative=())] = False,
) -> int:
    """Run a command from a YAML recipe: `enhance: {model: NAME, domain: {creative-writing: 0.6}, out: FOLDER}`."""
    from burnish.cli.app import run

    arguments = recipe_arguments(recipe)
    if show:
        import shlex

        console.data(f"burnish {shlex.join(arguments)}")
        return 0
    return run(arguments)


def recipe_arguments(recipe: Path) -> list[str]:
    """The command line that a recipe stands for. Raises InputError for a file that is no recipe."""
    if not recipe.is_file():
        raise InputError(f"{recipe} does not exist. Pass a YAML file with one command and its options.")
    try:
        content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{recipe} is not YAML: {error}. Write one command and below it its options.") from error
    if not isinstance(content, dict) or len(content) != 1 or next(iter(content)) not in COMMANDS:
        raise InputError(f"{recipe} must hold one command ({', '.join(COMMANDS)}) and below it its options.")
    command, options = next(iter(content.items()))
    if not isinstance(options, dict):
        raise InputError(f"{recipe}: below '{command}' belong options, one a line, such as `model: smollm2-135m`.")
    options = {str(name).replace("_", "-"): value for name, value in options.items()}
    missing = [name for name in SUBJECTS[command] if name not in options]
    if missing:
        raise InputError(f"{recipe}: '{command}' needs {' and '.join(missing)}. Add a line for it.")
    arguments = [command, *(str(options.pop(name)) for name in SUBJECTS[command])]
    for name, value in options.items():
        arguments += _flag(recipe, name, value)
    return arguments


def _flag(recipe: Path, name: str, value: Any) -> list[str]:
    if name == "domain":
        return [f"--domain={Mix.from_yaml_value(value)}"]
    if value is True:
        return [f"--{name}"]
    if value is False or value is None:
        return []
    if isinstance(value, list):
        return [part for item in value for part in _flag(recipe, name, item)]
    if isinstance(value, dict):
        raise InputError(f"{recipe}: '{name}' is one value or a list, not a mapping.")
    return [f"--{name}={value}"]
