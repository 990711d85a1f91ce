"""Fails on variables whose names say nothing, and on file names that occur twice. `--shorten` takes what is mended off the list."""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "benchmarks", "docs", "checks")
VAGUE = frozenset({"found", "own", "kept", "whole", "said", "rest"})
# Files and the names that say enough there. `first, *rest` is allowed everywhere.
HONEST = {
    "benchmarks/facts.py": {"said"},  # the name in stored results: whether an answer says the fact
    "tests/conftest.py": {"own"},  # `tiny_model(own=True)`: a model that no other test shares
    # Keys of what `--json` prints.
    "src/burnish/artifacts/matching.py": {"own"},
    "src/burnish/explaining/facts.py": {"found"},
}
# File names that may occur twice: one in every package, or a command beside what it runs.
HONEST_TWICE = frozenset({"__init__.py", "__main__.py", "audit.py", "profile.py", "verify.py"})
# What is still to be renamed, one a line: files with vague names, and file names that occur twice.
LATER = Path(__file__).with_name("later.txt")


def bound(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that code binds, each with its line: variables, fields, targets of loops and `with`, parameters, patterns."""
    starred = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Starred)}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id="rest") if id(node) in starred:
                pass
            case ast.MatchStar(name="rest"):
                pass
            case (
                ast.Name(id=name, ctx=ast.Store())
                | ast.arg(arg=name)
                | ast.alias(asname=str(name))
                | ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
            ):
                yield name, node.lineno


def vague() -> Iterator[tuple[str, str]]:
    """Files with a vague name, each with what is wrong there."""
    for path in sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        refused = VAGUE - HONEST.get(file, set())
        for name, line in bound(ast.parse(path.read_text(encoding="utf-8"))):
            if name in refused:
                yield file, f"{file}:{line}: `{name}` does not say what it holds; name the thing"


def twice() -> Iterator[tuple[str, str]]:
    """File names that occur more than once in the package."""
    package = ROOT / "src" / "burnish"
    files = sorted(package.rglob("*.py"))
    for name, count in sorted(Counter(file.name for file in files).items()):
        if count > 1 and name not in HONEST_TWICE:
            places = ", ".join(file.relative_to(package).as_posix() for file in files if file.name == name)
            yield name, f"{name} occurs {count} times ({places}); say in the name what is inside"


def main(arguments: list[str]) -> int:
    """Prints what is wrong and not on the list; the list itself never grows here."""
    wrong = [*vague(), *twice()]
    listed = set(LATER.read_text(encoding="utf-8").split()) if LATER.exists() else set()
    if "--shorten" in arguments:
        LATER.write_text("".join(f"{key}\n" for key in sorted(listed & {key for key, _ in wrong})), encoding="utf-8")
    new = [message for key, message in wrong if key not in listed]
    if new:
        print(*new, sep="\n", file=sys.stderr)
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
