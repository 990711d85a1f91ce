"""`burnish run`: a command and its options from a YAML recipe."""

from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from cyclopts import Parameter

from burnish.cli import console
from burnish.errors import InputError
from burnish.mix import Mix

COMMANDS = ("enhance", "find", "tune", "apply", "verify", "audit", "evaluate", "explain", "chat", "train")
SUBJECTS = dict.fromkeys(COMMANDS, ("model",)) | {
    "apply": ("model", "plan-file"),
    "verify": ("base", "enhanced"),
    "audit": ("base", "other"),
}


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
    except (yaml.YAMLError, ValueError, RecursionError) as error:
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
    known = _options(command)
    for name, value in options.items():
        arguments += _flag(recipe, name, value, known)
    return arguments


def _options(command: str) -> dict[str, str | None]:
    """The options of a command by name. Those that are on or off have the flag that turns them off, "" where they are off unless they are
    passed; those that take a value have None."""
    from burnish.cli.app import app

    options: dict[str, str | None] = {}
    for argument in app[command].assemble_argument_collection():
        switch = argument.hint is bool or bool in get_args(argument.hint)
        off = next(iter(argument.negatives), "") if switch else None
        options.update({name.removeprefix("--"): off for name in argument.names if name not in argument.negatives})
    return options


def _flag(recipe: Path, name: str, value: Any, known: dict[str, str | None]) -> list[str]:
    if value is None:
        raise InputError(f"{recipe}: '{name}' has no value. Write one behind it, or remove the line.")
    if name == "domain":
        return [f"--domain={Mix.from_yaml_value(value)}"]
    if isinstance(value, bool) and known.get(name, "") is not None:
        flag = f"--{name}" if value or name not in known else known[name]  # an unknown one is refused by the command
        return [flag] if flag else []
    if isinstance(value, bool):
        raise InputError(
            f"{recipe}: '{name}' is {str(value).lower()}, and it takes a value. Write one, or remove the line."
        )
    if isinstance(value, list):
        return [part for item in value for part in _flag(recipe, name, item, known)]
    if isinstance(value, dict):
        raise InputError(f"{recipe}: '{name}' is one value or a list, not a mapping.")
    return [f"--{name}={value}"]
