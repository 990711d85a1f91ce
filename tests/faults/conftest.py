"""Order of the fault tests."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests fork, and kills first: a fork of a process in which a library has started threads of its own (vl-convert, servers)
    waits for them for ever."""
    items.sort(key=lambda item: (item.path.parent.name != "faults", item.path.stem != "test_kill"))
