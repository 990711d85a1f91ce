"""`burnish run`: a command and its options from a YAML recipe; and the recipe of the command that is running."""

import hashlib
import json
from collections.abc import Iterator
from contextvars import ContextVar
from os.path import isfile
from pathlib import Path
from typing import Annotated, Any, get_args

import cyclopts
import yaml
from cyclopts import ArgumentCollection, Parameter

from burnish.artifacts.recipe import RECIPE_FILE, recipe_text
from burnish.cli import console
from burnish.errors import InputError
from burnish.mix import Mix

ELSEWHERE = ("out", "overwrite", "dry-run", "json")  # options that change nothing in what is written
HASHED = "hash of a text: "  # what a recipe has in the place of an expert's prompt
_RECIPE: ContextVar[str | None] = ContextVar("recipe", default=None)


class _Written(yaml.SafeLoader):
    """Values as they are written, but for truths, nothing and whole tables: a revision of digits is no number, a day no date. Raises
    ConstructorError for a key that is there twice, of which one would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(names)) < len(names):
            raise yaml.constructor.ConstructorError(None, None, "a key is there twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


_Written.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0].rpartition(":")[2] in ("bool", "null", "merge")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def run_recipe(
    recipe: Annotated[
        Path,
        Parameter(
            help="YAML file of one command, and below it its options by their names; or an output, which carries its own recipe"
        ),
    ],
    *,
    out: Annotated[Path | None, Parameter(alias="-o", help="output path, instead of the recipe's")] = None,
    show: Annotated[bool, Parameter(help="print the command line instead of running it", negative=())] = False,
) -> int:
    """Run a command from a YAML recipe: `enhance: {model: NAME, domain: {creative-writing: 0.6}, out: FOLDER}`.

    Every output carries the recipe that made it, without a path of its own: `burnish run OUT -o COPY` makes it again, byte for byte.
    """
    from burnish.cli.app import run

    arguments = recipe_arguments(recipe, out)
    if show:
        import shlex

        console.data(f"burnish {shlex.join(arguments)}")
        return 0
    return run(arguments)


def recipe_arguments(recipe: Path, out: Path | None = None) -> list[str]:
    """The command line that a recipe stands for. out: in the place of the recipe's own. Raises InputError for what is no recipe."""
    try:
        content = yaml.load(_text(recipe), Loader=_Written)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{recipe} is not YAML: {error}. Write one command and below it its options.") from error
    commands = {" ".join(path): command for path, command in _commands()}
    if not isinstance(content, dict) or len(content) != 1 or next(iter(content)) not in commands:
        raise InputError(f"{recipe} must hold one command ({', '.join(commands)}) and below it its options.")
    command, options = next(iter(content.items()))
    if not isinstance(options, dict):
        raise InputError(f"{recipe}: below '{command}' belong options, one a line, such as `model: smollm2-135m`.")
    options = _dashed(recipe, options)
    if out is not None:
        options["out"] = str(out)
    known = commands[command].assemble_argument_collection()
    subjects = [_name(a) for a in known if a.index is not None]
    required = [_name(a) for a in known if a.required and a.name.startswith("--")]
    missing = [name for name in required if name not in options or (name in subjects and options[name] is None)]
    if missing:
        hint = "Pass -o OUT." if missing == ["out"] else "Add a line for it."
        raise InputError(f"{recipe}: '{command}' needs {' and '.join(missing)}. {hint}")
    arguments = [*command.split(), *(_subject(recipe, name, options.pop(name)) for name in subjects if name in options)]
    switches = _switches(known)
    for name, value in options.items():
        arguments += _flag(recipe, name, value, switches)
    return arguments


def _dashed(recipe: Path, options: dict[Any, Any]) -> dict[str, Any]:
    """Names of options as flags have them. Raises InputError for one that is there in both spellings."""
    dashed: dict[str, Any] = {}
    for name, value in options.items():
        flag = str(name).replace("_", "-")
        if flag in dashed:
            raise InputError(f"{recipe}: '{flag}' is there twice. Keep one.")
        dashed[flag] = value
    return dashed


def _subject(recipe: Path, name: str, value: Any) -> str:
    """What stands without a flag. Raises InputError for what is neither a text nor a number, or would be taken for a flag."""
    if isinstance(value, bool | list | dict) or str(value).startswith("-"):
        raise InputError(
            f"{recipe}: '{name}' is {value!r}, which is no name and no path. Write it in quotes, or mend it."
        )
    return str(value)


def remember(app: cyclopts.App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Keeps the recipe of a command line as it is parsed (`cyclopts.App(config=...)`)."""
    options = {_name(a): _value(_name(a), a) for a in arguments if a.tokens and _name(a) not in ELSEWHERE}
    _RECIPE.set(recipe_text({" ".join(commands): options}))


def current_recipe() -> str | None:
    """The recipe of the command that is running; None where Python is the caller."""
    return _RECIPE.get()


def _name(argument: cyclopts.Argument) -> str:
    return argument.name.removeprefix("--")


def _value(name: str, argument: cyclopts.Argument) -> Any:
    """What was passed, as YAML: numbers as they were written, several values as a list, a mix in one form."""
    values = [t.implicit_value if isinstance(t.implicit_value, bool) else _number(t.value) for t in argument.tokens]
    text = argument.tokens[0].value
    if name == "expert" and not isfile(text):  # the prompt itself is written nowhere
        return HASHED + hashlib.sha256(text.encode()).hexdigest()[:16]
    if name == "domain":
        return str(Mix.from_yaml_value(values))
    return values[0] if len(values) == 1 else values


def _number(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            if str(kind(text)) == text:
                return kind(text)
        except ValueError:
            continue
    return text


def _text(path: Path) -> str:
    """A recipe file, or the recipe that an output carries. Raises InputError where there is none."""
    if path.is_dir():
        path = path / RECIPE_FILE
    if not path.is_file():
        raise InputError(f"{path} does not exist. Pass a YAML file with one command and its options, or an output.")
    with path.open("rb") as file:
        start = file.read(9)
    if start[:4] != b"GGUF" and start[6:] != b"\0\0{":  # neither a GGUF nor a safetensors file
        return path.read_text(encoding="utf-8")
    carried = _carried(path, gguf=start[:4] == b"GGUF")
    if carried is None:
        raise InputError(f"{path} carries no recipe. Pass an output of this version, or a YAML file.")
    return carried


def _carried(file: Path, *, gguf: bool) -> str | None:
    if not gguf:
        from burnish.artifacts.direction_file import recipe_of

        return recipe_of(file)
    from burnish.artifacts.gguf_edit import MARK
    from burnish.artifacts.gguf_file import read_gguf

    record = json.loads(str(read_gguf(file).metadata.get(MARK, "{}")))
    return record.get("recipe") if isinstance(record, dict) else None


def _commands() -> Iterator[tuple[tuple[str, ...], cyclopts.App]]:
    """Every command that a recipe can hold, with its words."""
    from burnish.cli.app import app

    def below(parent: cyclopts.App, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], cyclopts.App]]:
        for name in sorted(n for n in parent if not n.startswith("-")):
            command = parent[name]
            if command.default_command is not None:
                yield (*words, name), command
            yield from below(command, (*words, name))

    return ((words, command) for words, command in below(app, ()) if words != ("run",))


def _switches(known: ArgumentCollection) -> dict[str, str | None]:
    """The options of a command by name. Those that are on or off have the flag that turns them off, "" where they are off unless they are
    passed; those that take a value have None."""
    options: dict[str, str | None] = {}
    for argument in known:
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
