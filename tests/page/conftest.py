"""A browser and a made-up server; whatever is complained of in a page fails its test."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from page.browsing import WIDE, Open
from page.fake_server import State, serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def served() -> Iterator[tuple[str, State]]:
    server, state = serve()
    yield f"http://127.0.0.1:{server.server_port}/", state
    server.shutdown()
    server.server_close()


@pytest.fixture
def state(served: tuple[str, State]) -> State:
    return served[1]


@pytest.fixture
def opened(browser: "Browser", served: tuple[str, State]) -> Iterator[Open]:
    """opened(expected="", started=True, **options of a context): the page. `expected` may be in the console."""
    url, _ = served
    heard: list[str] = []
    contexts: list[Any] = []
    allowed: list[str] = []

    def new(expected: str | None = None, started: bool = True, **options: Any) -> Any:
        allowed.extend([expected] if expected else [])
        contexts.append(browser.new_context(**{"viewport": WIDE, "reduced_motion": "reduce", **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("request", lambda request: request.url.startswith((url, "data:")) or heard.append(request.url))
        page.goto(url)
        if started:
            page.wait_for_selector("[data-started]")
        return page

    yield new
    for context in contexts:
        context.close()
    assert [line for line in heard if not any(known in line for known in allowed)] == []
