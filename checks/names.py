"""Fails on variables whose names say nothing, and on file names that occur twice."""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "benchmarks", "docs", "checks", "examples")
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


def vague() -> Iterator[str]:
    """What is wrong with a name, one a line."""
    for path in sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        refused = VAGUE - HONEST.get(file, set())
        for name, line in bound(ast.parse(path.read_text(encoding="utf-8"))):
            if name in refused:
                yield f"{file}:{line}: `{name}` does not say what it holds; name the thing"


def twice() -> Iterator[str]:
    """File names that occur more than once in the package."""
    package = ROOT / "src" / "burnish"
    files = sorted(package.rglob("*.py"))
    for name, count in sorted(Counter(file.name for file in files).items()):
        if count > 1 and name not in HONEST_TWICE:
            places = ", ".join(file.relative_to(package).as_posix() for file in files if file.name == name)
            yield f"{name} occurs {count} times ({places}); say in the name what is inside"


def main() -> int:
    """Prints what is wrong; 1 if anything is."""
    wrong = [*vague(), *twice()]
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
