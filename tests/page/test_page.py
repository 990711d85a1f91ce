"""The server's page in a browser: what is asked of the server, and what is shown of its answers."""

import re

import pytest

from page.browsing import Open, ask, expect, make_profile, slide, text_of, wait
from page.fake_server import BASE, ENHANCED, State

pytestmark = pytest.mark.enable_socket  # the made-up server listens on the loopback


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


@pytest.mark.full
def test_with_nothing_changed_only_the_base_is_asked(opened: Open, state: State) -> None:
    page = opened()
    turn = ask(page)
    expect(text_of(turn, "enhanced")).to_contain_text("Move a slider")
    assert [body["model"] for body in state.bodies("/v1/chat/completions")] == ["base"]
    assert state.bodies("/api/damage") == []


def test_stop_keeps_what_was_written_and_regenerate_asks_again(opened: Open, state: State) -> None:
    state.delay = 0.1
    page = opened()
    slide(page)
    page.fill("#prompt", "Describe the sea")
    page.click("#send")
    turn = page.get_by_test_id("turn")
    expect(text_of(turn, "enhanced")).to_contain_text("At night")
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
    before = state.bodies("/v1/chat/completions")[-1]["seed"]
    page.get_by_test_id("regenerate-anew").click()
    wait(page.locator("#send"), "Send")
    first, second = (body["seed"] for body in state.bodies("/v1/chat/completions")[-2:])
    assert first == second != before


@pytest.mark.full
def test_the_meter_measures_the_latest_mix_once_the_sliders_rest(opened: Open, state: State) -> None:
    page = opened()
    moves = "(number) => ['0.2', '0.4', '0.6'].forEach((v) => { number.value = v; number.dispatchEvent(new Event('input')); })"
    page.get_by_test_id("number-creative-writing").evaluate(moves)  # at once: a slow machine would let the sliders rest
    words = page.locator("#damage-words")
    wait(words, "0.005 of 0.010 nats per token: everyday answers stay close")
    assert [body["model"] for body in state.bodies("/api/damage")] == ["base+0.6 creative-writing"]
    assert page.locator("#damage").get_attribute("aria-valuenow").startswith("0.0045")
    slide(page, value="1.5")
    wait(words, re.compile("0.024 of 0.010 .*: over the budget"))
    page.get_by_test_id("reset-creative-writing").click()
    wait(words, re.compile("Nothing is changed"))
    assert page.evaluate("document.activeElement.id") == "slider-creative-writing"


@pytest.mark.full
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


@pytest.mark.full
def test_the_dose_curve_is_drawn_and_told(opened: Open) -> None:
    page = opened()
    slide(page)
    page.click("#dose")
    expect(page.get_by_test_id("dose-chart")).to_have_count(2)
    drawing = page.get_by_test_id("dose-chart").first.locator("svg")
    assert "at 1.5" in drawing.get_attribute("aria-label") and drawing.locator("circle").count() == 5
    assert page.locator("[data-testid=dose-table] tbody tr").count() == 5
    slide(page, value="0.7")
    expect(page.get_by_test_id("dose-chart")).to_have_count(0)


def test_a_choice_changes_what_was_learned_and_undo_takes_it_back(opened: Open, state: State) -> None:
    page = opened()
    slide(page)
    turn = ask(page)
    assert page.get_by_test_id("choose-right").count() == 0  # no profile yet
    make_profile(page)
    page.get_by_test_id("choose-right").press("Enter")
    wait(page.get_by_test_id("says"), "more like creative writing, more casual")
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


@pytest.mark.full
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
    ask(page)
    page.get_by_test_id("choose-left").click()
    page.get_by_test_id("undo-choice").wait_for()
    page.click("#tab-you")
    page.get_by_test_id("save-sliders").click()
    wait(page.locator("#expression"), 'base+"my own"')
    assert page.get_by_test_id("undo-choice").count() == 0  # an undo would now take the sliders back
    assert state.profiles["my own"].sliders == {"creative-writing": 0.6}
    slide(page, "long-short", "0.2")
    wait(page.locator("#expression"), 'base+"my own" + 0.2 long-short')
    page.click("#tab-you")
    page.get_by_role("button", name="Take Creative writing back").click()
    expect(page.get_by_role("button", name="Take Creative writing back")).to_have_count(0)
    assert state.profiles["my own"].sliders == {}
    page.uncheck("#use-profile")
    wait(page.locator("#expression"), "base+0.2 long-short")


@pytest.mark.full
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


@pytest.mark.full
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
    expect(page.get_by_test_id("says")).to_have_count(0)
    assert state.profiles == {} and page.input_value("#profile") == ""
