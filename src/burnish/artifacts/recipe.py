"""The command that made an output, carried by the output itself."""

from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import yaml

from burnish import __version__
from burnish.errors import InputError
from burnish.mix import Mix

RECIPE_FILE = "burnish/recipe.yaml"  # in an output folder; output files carry the same text inside
ADDRESSES = ("judge-url",)  # options that are nobody else's business


def recipe_text(table: dict[str, Any]) -> str:
    """A recipe as YAML. table: one command, and below it its options by their names."""
    text: str = yaml.safe_dump(table, allow_unicode=True, sort_keys=False, width=1000)
    return f"# Burnish {__version__}: `burnish run THIS -o OUT` makes it again.\n{text}"


def write_recipe(folder: Path, recipe: str | None) -> None:
    """Writes the recipe of an output folder into it; None where Python made it."""
    if recipe is not None:
        (folder / RECIPE_FILE).parent.mkdir(exist_ok=True)
        (folder / RECIPE_FILE).write_text(recipe, encoding="utf-8")


def public_recipe(recipe: str, local: AbstractSet[str], base: str) -> str:
    """A recipe for others: of a file of this machine its name, of the base model its hub id, and no address.

    local: what the base model is called here; base: its hub id.
    """
    table = yaml.safe_load(recipe)
    if not isinstance(table, dict) or not all(isinstance(options, dict) for options in table.values()):
        return recipe

    def public(value: Any) -> Any:
        if isinstance(value, list):
            return [public(item) for item in value]
        if not isinstance(value, str):
            return value
        if value in local:
            return base
        for name in _names(value):
            if name.startswith("~") or Path(name).is_absolute():
                value = value.replace(name, Path(name).name)
        return value

    known = {
        command: {name: public(value) for name, value in options.items() if name not in ADDRESSES}
        for command, options in table.items()
    }
    return recipe if known == table else recipe_text(known)


def _names(value: str) -> list[str]:
    """The files of a mix, the longest first, or the value itself."""
    try:
        mix = Mix.of_files(Path(value))
    except InputError:  # a text with a sign in it
        mix = None
    return [value] if mix is None else sorted((term.name for term in mix.terms), key=len, reverse=True)
