"""Fails where a public function does not document its arguments, result and errors in Google style, a class its fields, or where one
is not in the Python reference."""

import sys
from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[1]
OPTIONS = "options"  # the module whose fields carry their text in their annotations


def sections(item: griffe.Object) -> dict[str, list[str]]:
    """The names that each section of a docstring lists."""
    if item.docstring is None:
        return {}
    kinds = {part.kind.value: part.value for part in item.docstring.parse("google", warnings=False)}
    return {
        kind: [str(getattr(entry, "name", "") or entry.annotation) for entry in value]
        for kind, value in kinds.items()
        if isinstance(value, list)
    }


def wrong_in_function(function: griffe.Function, errors: set[str]) -> Iterator[str]:
    """What a function's docstring lacks."""
    listed = sections(function)
    names = [p.name.lstrip("*") for p in function.parameters if p.name not in ("self", "cls")]
    if function.docstring is None:
        yield "has no docstring"
    for name in names:
        if name not in listed.get("parameters", []):
            yield f"does not say what `{name}` is (Args)"
    if str(function.returns) != "None" and not {"returns", "yields"} & listed.keys():
        yield "does not say what it returns (Returns)"
    for name in listed.get("raises", []):
        if name not in errors:
            yield f"says that it raises {name}, which is no error of burnish.errors"
    if function.docstring is not None and "raises" not in listed and "Raises" in function.docstring.value:
        yield "names its errors outside the section Raises"


def wrong_in_class(kind: griffe.Class, errors: set[str]) -> Iterator[tuple[str, str]]:
    """What the docstrings of a class and of its public methods lack."""
    described = sections(kind).get("attributes", [])
    for name, member in kind.members.items():
        if name.startswith("_"):
            continue
        if isinstance(member, griffe.Function):
            yield from ((f"{kind.name}.{name}", wrong) for wrong in wrong_in_function(member, errors))
        elif isinstance(member, griffe.Attribute) and "property" in member.labels:
            if member.docstring is None:
                yield f"{kind.name}.{name}", "has no docstring"
        elif kind.module.name != OPTIONS and name not in described:
            yield f"{kind.name}.{name}", "is not described (Attributes of the class)"


def main() -> int:
    """Prints what is missing in what `burnish.__all__` names."""
    package = griffe.load("burnish", search_paths=[str(ROOT / "src")])
    errors = {name for name, item in package["errors"].members.items() if isinstance(item, griffe.Class)}
    wrong: list[str] = []
    for name in package.exports or ():
        item = package[str(name)].final_target
        if isinstance(item, griffe.Class):
            wrong += [f"burnish.{place} {text}" for place, text in wrong_in_class(item, errors)]
        else:
            wrong += [f"burnish.{name} {text}" for text in wrong_in_function(item, errors)]
    listed = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").split()
    wrong += [
        f"burnish.{name} is not on docs/api.md" for name in package.exports or () if f"burnish.{name}" not in listed
    ]
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
