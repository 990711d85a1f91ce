"""The page and the real server together, from the first answer to being forgotten."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Folders
from page.browsing import Open, ask, expect, make_profile, slide, text_of
from serving_example import Running, running, small_measurements

# The server listens on the loopback; its model never stops, otherwise than its files say.
pytestmark = [pytest.mark.enable_socket, pytest.mark.usefixtures("own_cache")]


@pytest.fixture
def server(tiny_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    small_measurements(monkeypatch)
    with running(tiny_folder("llama"), tmp_path) as server:
        yield server


@pytest.fixture
def served(server: Running) -> tuple[str, None]:
    """What the browser opens, in the place of the made-up server."""
    return f"{server.url}/", None


def test_chat_slide_choose_see_the_profile_change_reload_and_forget(opened: Open, server: Running) -> None:
    page = opened()
    make_profile(page)
    page.click("#tab-settings")
    page.fill("#tokens", "24")
    slide(page, "education", "1.5")
    expect(page.locator("#damage-words")).to_contain_text("nats per token", timeout=20_000)
    turn = ask(page)
    base, enhanced = (text_of(turn, kind).inner_text() for kind in ("base", "enhanced"))
    assert base and enhanced and base != enhanced
    page.get_by_test_id("choose-right").last.click()
    page.click("#tab-you")
    expect(page.locator("body")).to_contain_text("Learned from 1 choice")
    store = server.service.store
    assert len(store.choices("local", "mine")) == store.profile("local", "mine").choices == 1
    page.reload()
    page.wait_for_selector("[data-started]")
    page.click("#tab-you")
    expect(page.locator("body")).to_contain_text("Learned from 1 choice")
    page.click("#tab-steer")
    assert page.get_by_test_id("number-education").input_value() == "1.50"
    page.click("#tab-you")
    page.get_by_test_id("forget").click()
    page.fill("#forget-typed", "mine")
    page.click("#forget-sure")
    expect(page.locator("#profile option[value=mine]")).to_have_count(0)
    assert store.profiles("local") == []
