"""The server's page in a real browser, against a made-up server: every test also hears that nothing was complained of."""

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from page.fake_server import BASE, ENHANCED, State, serve

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = pytest.mark.enable_socket  # the made-up server listens on the loopback
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDE, TELEPHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 740}
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> \u202eright to left\u202c \x07 & <b>bold</b>"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> "Iterator[sync_api.Browser]":
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"No browser: none of {', '.join(BROWSERS)} is on the path")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


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
def opened(browser: "sync_api.Browser", served: tuple[str, State]) -> Iterator[Open]:
    """opened(expected="", started=True, **options of a context): the page. `expected` may be in the console."""
    url, _ = served
    heard: list[str] = []
    contexts: list[Any] = []
    allowed: list[str] = []

    def new(expected: str | None = None, started: bool = True, **options: Any) -> Any:
        allowed.extend([expected] if expected else [])
        contexts.append(browser.new_context(**{"viewport": WIDE, "reduced_motion": "reduce", **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(5000)
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


def wait(locator: Any, text: str | re.Pattern[str]) -> None:
    sync_api.expect(locator).to_have_text(text)


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


def test_both_sides_are_asked_with_the_same_seed_and_each_its_own_history(opened: Open, state: State) -> None:
    page = opened()
    slide(page)
    slide(page, "formal-casual", "-0.3")
    turn = ask(page)
    wait(text_of(turn, "base"), BASE)
    wait(text_of(turn, "enhanced"), ENHANCED)
    ask(page, "And in the morning?")
    by_model = {body["model"]: body for body in state.bodies("/v1/chat/completions")[2:]}
    assert set(by_model) == {"base", "base+0.6 creative-writing - 0.3 formal-casual"}
    base, enhanced = by_model["base"], by_model["base+0.6 creative-writing - 0.3 formal-casual"]
    assert (base["seed"], base["temperature"], base["max_tokens"]) == (enhanced["seed"], 0.7, 256)
    assert [m["content"] for m in base["messages"]] == ["Describe the sea at night", BASE, "And in the morning?"]
    assert [m["content"] for m in enhanced["messages"]] == [
        "Describe the sea at night",
        ENHANCED,
        "And in the morning?",
    ]


def test_with_nothing_changed_only_the_base_is_asked(opened: Open, state: State) -> None:
    page = opened()
    turn = ask(page)
    sync_api.expect(text_of(turn, "enhanced")).to_contain_text("Move a slider")
    assert [body["model"] for body in state.bodies("/v1/chat/completions")] == ["base"]
    assert state.bodies("/api/damage") == []


def test_stop_keeps_what_was_written_and_regenerate_asks_again(opened: Open, state: State) -> None:
    state.delay = 0.1
    page = opened()
    slide(page)
    page.fill("#prompt", "Describe the sea")
    page.click("#send")
    turn = page.get_by_test_id("turn")
    sync_api.expect(text_of(turn, "enhanced")).to_contain_text("At night")
    page.click("#send")
    wait(page.locator("#send"), "Send")
    wait(turn.get_by_test_id("ends").last, "Stopped")
    assert 0 < len(text_of(turn, "enhanced").inner_text()) < len(ENHANCED)
    state.delay = 0.0
    slide(page, value="0.7")
    page.get_by_test_id("regenerate").click()
    wait(text_of(turn, "enhanced"), ENHANCED)
    assert [m["content"] for m in state.bodies("/v1/chat/completions")[-1]["messages"]] == ["Describe the sea"]
    assert state.bodies("/v1/chat/completions")[-1]["model"] in ("base", "base+0.7 creative-writing")


def test_the_meter_measures_the_latest_mix_once_the_sliders_rest(opened: Open, state: State) -> None:
    page = opened()
    for value in ("0.2", "0.4", "0.6"):
        slide(page, value=value)
    words = page.locator("#damage-words")
    wait(words, "0.005 of 0.010 nats per token: everyday answers stay close")
    assert [body["model"] for body in state.bodies("/api/damage")] == ["base+0.6 creative-writing"]
    assert page.locator("#damage").get_attribute("aria-valuenow").startswith("0.0045")
    slide(page, value="1.5")
    wait(words, re.compile("0.024 of 0.010 .*: over the budget"))
    page.get_by_test_id("reset-creative-writing").click()
    wait(words, re.compile("Nothing is changed"))
    assert page.evaluate("document.activeElement.id") == "slider-creative-writing"


def test_names_are_quoted_and_the_language_decides_which_sliders_count(opened: Open) -> None:
    page = opened()
    slide(page, "3d files", "1")
    slide(page, value="-0.5")
    assert page.locator("#expression").inner_text() == 'base - 0.5 creative-writing + "3d files"'
    assert r'model="base - 0.5 creative-writing + \"3d files\""' in page.locator("#snippet").text_content()
    page.select_option("#language", "ko")
    assert page.locator("#expression").inner_text() == 'base+"3d files"'
    assert page.get_by_test_id("slider-creative-writing").count() == 0
    assert page.get_by_test_id("slider-creative-writing-ko").is_visible()


def test_the_dose_curve_is_drawn_and_told(opened: Open) -> None:
    page = opened()
    slide(page)
    page.click("#dose")
    sync_api.expect(page.get_by_test_id("dose-chart")).to_have_count(2)
    drawing = page.get_by_test_id("dose-chart").first.locator("svg")
    assert "at 1.5" in drawing.get_attribute("aria-label") and drawing.locator("circle").count() == 5
    assert page.locator("[data-testid=dose-table] tbody tr").count() == 5
    slide(page, value="0.7")
    sync_api.expect(page.get_by_test_id("dose-chart")).to_have_count(0)


def test_tokens_are_shaded_and_tell_their_number(opened: Open, state: State) -> None:
    page = opened()
    slide(page)
    turn = ask(page)
    page.get_by_test_id("shade").click()
    tokens = page.get_by_test_id("token")
    tokens.first.wait_for()
    assert text_of(turn, "enhanced").text_content() == ENHANCED
    line = "element => getComputedStyle(element).borderBottomStyle"
    assert (tokens.nth(3).evaluate(line), tokens.nth(4).evaluate(line)) == ("solid", "dotted")
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    sync_api.expect(page.get_by_test_id("readout")).to_contain_text("+0.42 nats, likelier")
    assert tokens.nth(1).get_attribute("title").startswith("+0.42 nats")
    sent = state.bodies("/api/tokens")[0]
    assert (sent["model"], sent["answer"]) == ("base+0.6 creative-writing", ENHANCED)
    page.get_by_test_id("shade").click()
    assert tokens.count() == 0 and text_of(turn, "enhanced").text_content() == ENHANCED


def test_a_choice_changes_what_was_learned_and_undo_takes_it_back(opened: Open, state: State) -> None:
    page = opened()
    slide(page)
    turn = ask(page)
    assert page.get_by_test_id("choose-right").count() == 0  # no profile yet
    make_profile(page)
    page.get_by_test_id("choose-right").press("Enter")
    wait(page.get_by_test_id("says"), re.compile("more like creative writing"))
    assert page.evaluate("document.activeElement.dataset.testid") == "undo-choice"  # the keyboard's place is kept
    assert "0.41 casual" in page.get_by_test_id("coefficient-formal-casual").inner_text()
    sent = state.bodies("/api/profiles/mine/choices")[0]
    assert (sent["first"], sent["second"], sent["outcome"]) == (BASE, ENHANCED, 0)
    assert "unsure" in page.get_by_test_id("coefficient-long-short").inner_text()
    assert "+0.33 to +0.91" in page.get_by_test_id("coefficient-creative-writing").inner_text()
    page.get_by_test_id("undo-choice").click()
    wait(page.get_by_test_id("says"), "nothing learned yet for sure")
    turn.get_by_test_id("choose-none").click()
    page.get_by_test_id("undo-choice").wait_for()
    assert state.bodies("/api/profiles/mine/choices")[1]["outcome"] == 0.5


def test_teaching_shows_two_answers_that_are_not_named(opened: Open, state: State) -> None:
    page = opened()
    assert page.locator("#teach").is_disabled()
    make_profile(page)
    page.check("#teach")
    turn = ask(page)
    assert turn.get_by_test_id("model").all_inner_texts() == ["", ""]
    bodies = state.bodies("/v1/chat/completions")
    assert {body["model"] for body in bodies} == {"base+0.4 creative-writing", "base - 0.4 creative-writing"}
    assert {body["seed"] for body in bodies} == {7}
    first, second = text_of(turn, "first").inner_text(), text_of(turn, "second").inner_text()
    page.get_by_test_id("choose-left").click()
    wait(page.get_by_test_id("chosen"), re.compile("You preferred A"))
    assert state.bodies("/api/profiles/mine/choices")[0] == {
        "messages": [{"role": "user", "content": "Describe the sea at night"}], "first": first, "second": second, "outcome": 1,
    }  # fmt: skip
    page.uncheck("#teach")
    ask(page, "And now?")
    assert [m["content"] for m in state.bodies("/v1/chat/completions")[-1]["messages"]] == ["And now?"]


def test_an_edit_is_a_choice_of_the_final_over_the_draft(opened: Open, state: State) -> None:
    page = opened()
    make_profile(page)
    slide(page)
    turn = ask(page)
    page.get_by_test_id("edit").click()
    page.get_by_test_id("draft").fill("Mine, at last.")
    page.get_by_test_id("edit-save").click()
    wait(text_of(turn, "enhanced"), "Mine, at last.")
    page.get_by_test_id("undo-choice").wait_for()
    sent = state.bodies("/api/profiles/mine/choices")[0]
    assert (sent["first"], sent["second"], sent["outcome"]) == ("Mine, at last.", ENHANCED, 1)


def test_sliders_move_into_the_profile_which_is_then_used(opened: Open, state: State) -> None:
    page = opened()
    make_profile(page, "my own")
    slide(page)
    page.click("#tab-you")
    page.get_by_test_id("save-sliders").click()
    wait(page.locator("#expression"), 'base+"my own"')
    assert state.profiles["my own"]["sliders"] == {"creative-writing": 0.6}
    slide(page, "long-short", "0.2")
    wait(page.locator("#expression"), 'base+"my own" + 0.2 long-short')
    page.click("#tab-you")
    page.get_by_role("button", name="Take creative-writing back").click()
    sync_api.expect(page.get_by_test_id("coefficient-creative-writing")).to_have_count(0)
    page.uncheck("#use-profile")
    wait(page.locator("#expression"), "base+0.2 long-short")


def test_a_reload_keeps_sliders_settings_and_profile_but_no_conversation(opened: Open) -> None:
    page = opened()
    make_profile(page)
    slide(page)
    page.click("#tab-settings")
    page.fill("#temperature", "0.2")
    page.fill("#seed", "11")
    ask(page, "A secret prompt")
    assert "secret" not in page.evaluate("JSON.stringify({...sessionStorage, ...localStorage})")
    page.reload()
    page.wait_for_selector("[data-started]")
    assert (page.input_value("#temperature"), page.input_value("#seed"), page.input_value("#profile")) == (
        "0.2",
        "11",
        "mine",
    )
    assert page.locator("#expression").inner_text() == "base+0.6 creative-writing"
    assert page.get_by_test_id("turn").count() == 0


def test_forgetting_asks_for_the_name(opened: Open, state: State) -> None:
    page = opened()
    make_profile(page)
    page.get_by_test_id("forget").click()
    assert page.locator("#forget-sure").is_disabled()
    page.keyboard.press("Escape")
    assert not page.locator("#forget-dialog").is_visible() and "mine" in state.profiles
    page.get_by_test_id("forget").click()
    page.fill("#forget-typed", "mine")
    page.click("#forget-sure")
    sync_api.expect(page.get_by_test_id("says")).to_have_count(0)
    assert state.profiles == {} and page.input_value("#profile") == ""


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


def test_a_busy_server_is_waited_for_and_a_refusal_is_told_in_its_words(opened: Open, state: State) -> None:
    state.refusals = [("/v1/chat/completions", 429, {"Retry-After": "1"})]
    page = opened(expected="status of 429")
    page.fill("#prompt", "Hello")
    page.press("#prompt", "Enter")
    sync_api.expect(page.get_by_test_id("notice")).to_contain_text("Trying again in 1 second.")
    wait(text_of(page.get_by_test_id("turn"), "base"), BASE)
    state.refusals = [("/api/damage", 429, {})]
    slide(page)
    sync_api.expect(page.get_by_test_id("notice")).to_contain_text("Refused with 429, as asked.")
    page.get_by_test_id("notice-action").click()
    wait(page.locator("#damage-words"), re.compile("stay close"))


def test_a_lost_connection_is_told_and_found_again(opened: Open, state: State) -> None:
    page = opened(expected="ERR_CONNECTION_REFUSED")
    page.route("**/api/damage", lambda route: route.abort("connectionrefused"), times=1)
    slide(page)
    sync_api.expect(page.get_by_test_id("notice")).to_contain_text("connection to the server is lost")
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
    page.get_by_test_id("shade").click()
    page.get_by_test_id("token").first.wait_for()
    assert text_of(turn, "enhanced").text_content() == HOSTILE
    page.get_by_test_id("choose-left").click()
    page.get_by_test_id("undo-choice").wait_for()
    assert turn.get_by_test_id("asked").text_content() == HOSTILE.strip()
    assert page.locator("main img, main b, main script, #steering img, #steering i").count() == 0
    assert text_of(turn, "base").evaluate("element => getComputedStyle(element).unicodeBidi") == "isolate"


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
    page.get_by_test_id("shade").click()
    page.get_by_test_id("token").first.wait_for()
    assert page.evaluate(fits)
    boxes = [turn.get_by_test_id(f"answer-{kind}").bounding_box() for kind in ("base", "enhanced")]
    assert boxes[1]["y"] > boxes[0]["y"] + boxes[0]["height"]


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
    assert all(len(found) > 20 for found in ratios)
    assert [one for found in ratios for one in found if one[1] < 4.5] == []


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


def test_the_page_prints_the_conversation_alone(opened: Open) -> None:
    page = opened()
    ask(page)
    page.emulate_media(media="print")
    assert page.get_by_test_id("answer-base").is_visible()
    assert not page.locator("#composer").is_visible() and not page.locator("#steering").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
