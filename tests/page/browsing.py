"""What a person does on the server's page."""

import re
from collections.abc import Callable
from typing import Any

WIDE, TELEPHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 740}
Open = Callable[..., Any]
# [text, contrast with its ground] of every text that is seen
CONTRASTS = """() => {
  const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (colour) => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); return [...paint.getImageData(0, 0, 1, 1).data]; };
  const light = (c) => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return rgba('white'); };
  const own = (e) => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  return [...document.querySelectorAll('body *')]
    .filter(e => own(e) && e.checkVisibility({visibilityProperty: true}) && !e.matches('script, option, .unseen, .skip, :disabled') && !e.closest(':disabled'))
    .map(e => { const [a, b] = [light(rgba(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x); return [e.textContent.slice(0, 40), (a + 0.05) / (b + 0.05)]; });
}"""


def expect(locator: Any) -> Any:
    """Waits for what is expected of a locator. Playwright may not be installed where tests are collected."""
    from playwright.sync_api import expect as expected

    return expected(locator)


def wait(locator: Any, text: str | re.Pattern[str]) -> None:
    expect(locator).to_have_text(text)


def slide(page: Any, name: str = "creative-writing", value: str = "0.6") -> None:
    page.click("#tab-steer")
    page.get_by_test_id(f"number-{name}").fill(value)


def ask(page: Any, prompt: str = "Describe the sea at night") -> Any:
    """Sends a prompt and waits for both answers; the turn."""
    page.fill("#prompt", prompt)
    page.press("#prompt", "Enter")
    wait(page.locator("#send"), "Send")
    return page.get_by_test_id("turn").last


def make_profile(page: Any, name: str = "mine") -> None:
    page.click("#tab-you")
    page.click("#new-profile")
    page.fill("#profile-name", name)
    page.press("#profile-name", "Enter")
    page.get_by_test_id("says").wait_for()


def text_of(turn: Any, kind: str) -> Any:
    return turn.get_by_test_id(f"answer-{kind}").get_by_test_id("text")
