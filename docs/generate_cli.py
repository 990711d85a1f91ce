"""Writes docs/cli.md from the command table; with --check, fails when the page is out of date."""

import io
import re
import sys
from pathlib import Path

from cyclopts import App
from rich.console import Console

from burnish.cli.app import app

PAGE = Path(__file__).with_name("cli.md")


def help_of(*command: str) -> str:
    """The help text of a command, without colours, at a fixed width."""
    text = io.StringIO()
    app.help_print(list(command), console=Console(file=text, width=110, color_system=None, legacy_windows=False))
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def commands(parent: App, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command of the table, sub-commands after their parent."""
    names: list[tuple[str, ...]] = []
    for name in sorted(n for n in parent if not n.startswith("-")):
        names.append((*path, name))
        names += commands(parent[name], (*path, name))
    return names


def page() -> str:
    parts = [
        "# Command line\n\nGenerated from the command table by `make fix`; do not edit.\n",
        f"```\n{help_of()}\n```\n",
    ]
    parts += [f"## burnish {' '.join(c)}\n\n```\n{help_of(*c)}\n```\n" for c in commands(app)]
    return "\n".join(parts)


def main() -> int:
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if re.sub(r"\s+$", "", old) != re.sub(r"\s+$", "", text):
        print("docs/cli.md is out of date: run `make fix`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
