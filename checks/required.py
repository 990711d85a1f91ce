"""Links what burnish requires, and nothing else, from this environment into another one: `required.py SITE_PACKAGES`."""

import sys
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def needed(requirements: list[str]) -> dict[str, Distribution]:
    """Installed distributions by name: those required, and what they require in turn."""
    chosen: dict[str, Distribution] = {}
    todo = [(Requirement(line), "") for line in requirements]
    seen = set()
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        for part in ("", *requirement.extras):
            if (requirement.name, part) not in seen:
                seen.add((requirement.name, part))
                chosen[requirement.name] = distribution(requirement.name)
                todo += [(Requirement(line), part) for line in chosen[requirement.name].requires or ()]
    return chosen


def main(target: Path) -> None:
    """Links top-level modules, packages and metadata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for installed in needed(project["dependencies"]).values():
        for name in {file.parts[0] for file in installed.files or ()} - {"..", "__pycache__"}:
            link = target / name
            if not link.exists():
                link.symlink_to(Path(str(installed.locate_file(name))).resolve())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
