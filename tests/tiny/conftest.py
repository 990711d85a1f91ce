"""Servers of a tiny model, and one that never stops; a stand-in of the hub, and outputs to publish."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from burnish.model.model import Model
from conftest import Folders, Models
from hub_example import led_to_a_stand_in, outputs
from hub_stand_in import HubStandIn
from serving_example import Running, running, small_measurements


@pytest.fixture(scope="module")
def served(tiny_folder: Folders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests that leave it as it was."""
    with pytest.MonkeyPatch.context() as patch:
        small_measurements(patch)
        with running(tiny_folder("llama"), tmp_path_factory.mktemp("data")) as server:
            yield server


@pytest.fixture
def lone(tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A server of the test's own."""
    small_measurements(monkeypatch)
    with running(tiny_folder("llama"), tmp_path) as server:
        yield server


@pytest.fixture
def llama(tiny_model: Models) -> Model:
    """A tiny model that never stops by itself."""
    model = tiny_model("llama", own=True)
    model.stop_tokens = frozenset()
    return model


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    """A stand-in of the hub, to which the client is led."""
    with led_to_a_stand_in(tmp_path, monkeypatch) as state:
        yield state


@pytest.fixture(scope="session")
def made(tiny_folder: Folders, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same enhancement in each form, to be published."""
    return outputs(tiny_folder("llama"), tmp_path_factory.mktemp("made"))
