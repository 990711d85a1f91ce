"""The server's page in a browser: refusals, hostile text, keyboard, telephone, contrast and paper."""

import re

import pytest

from page.browsing import CONTRASTS, TELEPHONE, Open, ask, expect, make_profile, slide, text_of, wait
from page.fake_server import BASE, State

pytestmark = pytest.mark.enable_socket  # the made-up server listens on the loopback
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> \u202eright to left\u202c \x07 & <b>bold</b>"


@pytest.mark.full
def test_a_name_that_is_taken_is_said_in_the_dialog(opened: Open, state: State) -> None:
    page = opened(expected="status of 409")
    make_profile(page)
    page.click("#new-profile")
    assert not page.is_checked("#profile-text")
    page.fill("#profile-name", "mine")
    page.press("#profile-name", "Enter")
    wait(page.locator("#profile-problem"), "There is a profile 'mine' already. Choose another name.")


def test_the_key_is_asked_for_until_it_is_right(opened: Open, state: State) -> None:
    state.key = "right"
    page = opened(expected="status of 401", started=False)
    page.fill("#key", "wrong")
    page.press("#key", "Enter")
    wait(page.locator("#key-why"), re.compile("does not accept"))
    page.fill("#key", "right")
    page.press("#key", "Enter")
    page.wait_for_selector("[data-started]")
    wait(page.locator("#server-state"), "maria")
    page.reload()
    page.wait_for_selector("[data-started]")
    assert not page.locator("#key-dialog").is_visible()


@pytest.mark.full
def test_a_busy_server_is_waited_for_and_a_refusal_is_told_in_its_words(opened: Open, state: State) -> None:
    state.refusals = [("/v1/chat/completions", 429, {"Retry-After": "1"})]
    page = opened(expected="status of 429")
    page.fill("#prompt", "Hello")
    page.press("#prompt", "Enter")
    expect(page.get_by_test_id("notice")).to_contain_text("Trying again in 1 second.")
    wait(text_of(page.get_by_test_id("turn"), "base"), BASE)
    state.refusals = [("/api/damage", 429, {})]
    slide(page)
    expect(page.get_by_test_id("notice")).to_contain_text("Refused with 429, as asked.")
    page.get_by_test_id("notice-action").click()
    wait(page.locator("#damage-words"), re.compile("stay close"))


def test_a_lost_connection_is_told_and_found_again(opened: Open, state: State) -> None:
    page = opened(expected="ERR_CONNECTION_REFUSED")
    page.route("**/api/damage", lambda route: route.abort("connectionrefused"), times=1)
    slide(page)
    expect(page.get_by_test_id("notice")).to_contain_text("connection to the server is lost")
    wait(page.get_by_test_id("notice").locator("p"), "Connected again.")
    wait(page.locator("#damage-words"), re.compile("stay close"))


def test_hostile_text_stays_text(opened: Open, state: State) -> None:
    state.answer = HOSTILE
    state.directions[0]["title"] = HOSTILE
    page = opened()
    make_profile(page, "<i>me</i>")
    slide(page)
    turn = ask(page, HOSTILE)
    assert text_of(turn, "base").text_content() == HOSTILE
    assert text_of(turn, "enhanced").text_content() == HOSTILE
    page.get_by_test_id("choose-left").click()
    page.get_by_test_id("undo-choice").wait_for()
    assert turn.get_by_test_id("asked").text_content() == HOSTILE.strip()
    assert page.locator("main img, main b, main script, #steering img, #steering i").count() == 0
    assert text_of(turn, "base").evaluate("element => getComputedStyle(element).unicodeBidi") == "isolate"


@pytest.mark.full
def test_everything_is_reached_by_keyboard(opened: Open) -> None:
    page = opened()
    seen: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
            )
        )
        if "dose" in seen or seen[-1] == "BODY":
            break
    wanted = [
        "skip",
        "fresh",
        "main",
        "prompt",
        "send",
        "copy-expression",
        "tab-steer",
        "language",
        "slider-creative-writing",
        "slider-formal-casual",
    ]
    assert [one for one in seen if one in wanted] == wanted
    page.focus("#slider-creative-writing")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert page.locator("#expression").inner_text() == "base+0.2 creative-writing"
    page.focus("#tab-steer")
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-you").is_visible() and page.evaluate("document.activeElement.id") == "tab-you"
    page.focus("#new-profile")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "profile-name"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "new-profile"
    page.focus("#prompt")
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    wait(page.get_by_test_id("asked"), "One\ntwo")


@pytest.mark.full
def test_a_telephone_shows_all_without_scrolling_sideways(opened: Open) -> None:
    page = opened(viewport=TELEPHONE)
    fits = "document.documentElement.scrollWidth <= innerWidth && [...document.querySelectorAll('main, #steering')].every(e => e.scrollWidth <= e.clientWidth)"
    page.click("#open-steering")
    slide(page)
    page.click("#dose")
    page.get_by_test_id("dose-chart").first.wait_for()
    page.locator("summary").first.click()
    assert page.evaluate(fits)
    make_profile(page, "a rather long name of a profile that has to wrap somewhere")
    assert page.evaluate(fits)
    page.keyboard.press("Escape")
    assert not page.locator("#steering").is_visible()
    assert page.evaluate("document.activeElement.id") == "open-steering"
    turn = ask(page, "w" * 200)
    assert page.evaluate(fits)
    boxes = [turn.get_by_test_id(f"answer-{kind}").bounding_box() for kind in ("base", "enhanced")]
    assert boxes[1]["y"] > boxes[0]["y"] + boxes[0]["height"]


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(scheme: str, opened: Open) -> None:
    page = opened(color_scheme=scheme)
    make_profile(page)
    slide(page, value="1.5")
    page.locator("#damage-words.over").wait_for()
    ask(page)
    page.get_by_test_id("choose-right").click()
    page.get_by_test_id("undo-choice").wait_for()
    ask(page, "Again")
    ratios = [page.evaluate(CONTRASTS)]
    page.click("#tab-you")
    ratios.append(page.evaluate(CONTRASTS))
    page.get_by_test_id("forget").click()
    ratios.append(page.evaluate(CONTRASTS))
    assert all(len(pairs) > 20 for pairs in ratios)
    assert [one for pairs in ratios for one in pairs if one[1] < 4.5] == []


@pytest.mark.full
def test_the_page_prints_the_conversation_alone(opened: Open) -> None:
    page = opened()
    ask(page)
    page.emulate_media(media="print")
    assert page.get_by_test_id("answer-base").is_visible()
    assert not page.locator("#composer").is_visible() and not page.locator("#steering").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
