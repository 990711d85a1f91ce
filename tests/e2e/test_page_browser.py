"""The page in a real browser: it loads nothing, draws everything, and fits light, dark, a telephone and paper."""

from pathlib import Path

import pytest

from burnish.explaining.page import render_page
from explaining_example import full, minimal

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
WIDE, TELEPHONE = {"width": 1200, "height": 900}, {"width": 375, "height": 800}
MARKS = "path, line, rect, text, circle"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    pages = {"full": render_page(full()), "minimal": render_page(minimal())}
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


@pytest.mark.parametrize("name", ["full", "minimal"])
def test_nothing_is_loaded_and_nothing_is_complained_of(
    name: str, browser: "sync_api.Browser", files: dict[str, Path]
) -> None:
    page = browser.new_page(viewport=WIDE)
    heard: list[str] = []
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(files[name].as_uri())
    page.wait_for_load_state("networkidle")
    assert heard == []
    assert requests == [files[name].as_uri()]
    page.close()


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, TELEPHONE], ids=["wide", "telephone"])
def test_every_chart_is_seen_and_the_page_fits(
    scheme: str, viewport: dict[str, int], browser: "sync_api.Browser", files: dict[str, Path]
) -> None:
    page = browser.new_page(viewport=viewport, color_scheme=scheme)
    page.goto(files["full"].as_uri())
    drawings = page.locator("figure.chart > svg")
    assert drawings.count() == 5
    for drawing in drawings.all():
        box = drawing.bounding_box()
        assert box is not None and box["width"] > 250 and box["height"] > 80
        assert box["x"] >= 0 and box["x"] + box["width"] <= viewport["width"]
        assert drawing.locator(".role-mark").locator(MARKS).count() > 0
        assert drawing.locator("title").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    page.close()


def test_dark_and_light_have_different_colours_in_page_and_charts(
    browser: "sync_api.Browser", files: dict[str, Path]
) -> None:
    seen = []
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport=WIDE, color_scheme=scheme)
        page.goto(files["minimal"].as_uri())
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        mark = page.evaluate("getComputedStyle(document.querySelector('.role-mark path')).fill")
        assert paper != "rgba(0, 0, 0, 0)" and mark.startswith("rgb")
        seen.append((paper, mark))
        page.close()
    assert seen[0][0] != seen[1][0] and seen[0][1] != seen[1][1]


@pytest.mark.full
def test_the_numbers_open_with_the_keyboard(browser: "sync_api.Browser", files: dict[str, Path]) -> None:
    page = browser.new_page(viewport=TELEPHONE)
    page.goto(files["minimal"].as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    table = page.locator("#separation-1 table")
    assert not table.is_visible()
    page.locator("#separation-1 summary").focus()
    page.keyboard.press("Enter")
    assert table.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= TELEPHONE["width"]
    page.close()


@pytest.mark.full
def test_the_page_prints(browser: "sync_api.Browser", files: dict[str, Path], tmp_path: Path) -> None:
    page = browser.new_page(viewport=WIDE)
    page.goto(files["full"].as_uri())
    printed = page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert printed.startswith(b"%PDF") and len(printed) > 50_000
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.locator("figure.chart > svg").first.is_visible()
    page.close()
