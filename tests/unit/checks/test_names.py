"""The check of names sees every way to bind one."""

import ast
import runpy
from pathlib import Path

import pytest

CHECK = runpy.run_path(str(Path(__file__).parents[3] / "checks" / "names.py"))


@pytest.mark.parametrize(
    "code",
    [
        "found = 1",
        "found: int = 1",
        "found += 1",
        "for a, (found, b) in c: pass",
        "with a as found: pass",
        "if (found := a): pass",
        "[found for found in a]",
        "def f(found): pass",
        "def f(*, found=1): pass",
        "def f(*found): pass",
        "lambda found: 1",
        "import a as found",
        "try: pass\nexcept A as found: pass",
        "match a:\n    case [found, b]: pass",
        "match a:\n    case [b, *found]: pass",
        "match a:\n    case {'b': 1, **found}: pass",
    ],
)
def test_a_bound_name_is_seen(code: str) -> None:
    assert "found" in [name for name, _ in CHECK["bound"](ast.parse(code))]


@pytest.mark.parametrize(
    "code",
    [
        "print(found)",
        "a.found",
        "f(found=1)",
        "first, *rest = a",
        "match a:\n    case [b, *rest]: pass",
        "case = {'found': 1}",
    ],
)
def test_what_binds_nothing_or_is_honest_is_not_seen(code: str) -> None:
    assert not CHECK["VAGUE"] & {name for name, _ in CHECK["bound"](ast.parse(code))}
