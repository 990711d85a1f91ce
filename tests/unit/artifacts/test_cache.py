"""A result is made once for the same inputs, and again when any of them changes."""

from pathlib import Path
from typing import Any

import pytest

import burnish.artifacts.cache as caching
from burnish.artifacts.cache import cached
from burnish.errors import BurnishWarning, DiskFullError, OutputError

pytestmark = pytest.mark.usefixtures("own_cache")
IDENTITY = {"model": "a", "prompts": "b", "tokens": 8, "system": None, "seed": 0}


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> list[int]:
        self.calls += 1
        return [self.calls]


@pytest.mark.parametrize(
    "change", [{"model": "x"}, {"prompts": "x"}, {"tokens": 9}, {"system": "x"}, {"seed": 1}, {"dtype": "x"}]
)
def test_a_result_is_made_once_and_any_change_makes_it_again(change: dict[str, Any]) -> None:
    make = Counter()
    assert [cached("answers", IDENTITY, make) for _ in range(3)] == [[1], [1], [1]]
    assert cached("answers", {**IDENTITY, **change}, make) == [2]
    assert cached("other", IDENTITY, make) == [3]


def test_a_damaged_file_is_made_again() -> None:
    make = Counter()
    cached("answers", IDENTITY, make)
    (path,) = (caching.cache_root() / "answers").iterdir()
    path.write_text("{")
    assert cached("answers", IDENTITY, make) == [2]
    assert cached("answers", IDENTITY, make) == [2]


def full(*_: object, **__: object) -> None:
    raise DiskFullError("The disk is full.")


def test_a_cache_that_cannot_be_written_is_done_without_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(caching, "cache_root", lambda: tmp_path / "file")
    make = Counter()
    for number in (1, 2):
        with pytest.warns(BurnishWarning, match="BURNISH_CACHE"):
            assert cached("answers", IDENTITY, make) == [number]
    with monkeypatch.context() as patch, pytest.warns(BurnishWarning, match="is full"):
        patch.setattr(caching, "written", full)
        assert cached("answers", IDENTITY, make) == [3]
    with pytest.raises(OutputError, match="BURNISH_CACHE"), caching.cache_needed():
        (tmp_path / "file" / "x").mkdir()
