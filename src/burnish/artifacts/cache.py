"""Results worth keeping between runs, as JSON files named by everything that they depend on."""

import errno
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from burnish.artifacts.files import REFUSED, written
from burnish.errors import BurnishWarning, DiskFullError, OutputError
from burnish.paths import cache_root

ELSEWHERE = "Set BURNISH_CACHE to a folder of yours."


def cache_file(kind: str, identity: dict[str, Any], ending: str) -> Path:
    """Where the result of an `identity` (model, prompts, options, versions) is kept."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
    return cache_root() / kind / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}{ending}"


def cached(kind: str, identity: dict[str, Any], make: Callable[[], Any]) -> Any:
    """The stored result of the same `identity` (model, prompts, options, versions), else that of `make`, now stored.

    A damaged file is made again. Results are whatever JSON holds.
    """
    path = cache_file(kind, identity, ".json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))["result"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        result = make()  # there is none yet, or it is damaged
    keep(path, json.dumps({"identity": identity, "result": result}, ensure_ascii=False).encode())
    return result


def keep(path: Path, content: bytes) -> None:
    """Writes a file of the cache. Where that cannot be, it is said, and the work goes on without."""
    try:
        with written(path, overwrite=True, wait=True) as partial:
            partial.write_bytes(content)
    except OutputError as error:
        warnings.warn(
            f"The cache {cache_root()} cannot be written, so that the same work is done again next time ({error.__cause__ or error}) {ELSEWHERE}",
            BurnishWarning,
            stacklevel=2,
        )


@contextmanager
def cache_needed() -> Iterator[None]:
    """Raises OutputError with the way out where something that is done in the cache cannot be done there."""
    try:
        yield
    except (OutputError, OSError) as error:
        if isinstance(error, DiskFullError) or (
            isinstance(error, OSError) and error.errno not in (*REFUSED, errno.EEXIST)
        ):
            raise
        raise OutputError(f"The cache {cache_root()} cannot be written: {error} {ELSEWHERE}") from error
