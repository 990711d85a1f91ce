"""Results worth keeping between runs, as JSON files named by everything that they depend on."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from burnish.artifacts.files import written
from burnish.places import cache_root


def cache_file(kind: str, identity: dict[str, Any], ending: str) -> Path:
    """Where the result of an `identity` (model, prompts, options, versions) is kept."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
    return cache_root() / kind / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}{ending}"


def cached(kind: str, identity: dict[str, Any], make: Callable[[], Any]) -> Any:
    """The stored result of the same `identity` (model, prompts, options, versions), else that of `make`, now stored.

    A damaged file is made again. Results are whatever JSON holds.
    """
    path = cache_file(kind, identity, ".json")
    if path.exists():
        try:
            return json.loads(path.read_text(encoding="utf-8"))["result"]
        except (json.JSONDecodeError, KeyError):
            path.unlink()
    result = make()
    with written(path, overwrite=True, wait=True) as partial:
        partial.write_text(json.dumps({"identity": identity, "result": result}, ensure_ascii=False), encoding="utf-8")
    return result
