"""What requests may say, and how they are refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from burnish.errors import InputError, ModelError, RefusedError, WrongModelError
from burnish.server.responses import body_of, event
from burnish.server.wire import TAG, ChatRequest, ChoiceRequest, CompletionRequest, NewProfile, Sliders

CHAT: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "hi"}]}
PROMPT: dict[str, Any] = {"model": "base", "prompt": "x"}
CHOICE: dict[str, Any] = {"messages": CHAT["messages"], "first": "a", "second": "b"}


def refused(kind: Any, value: dict[str, Any]) -> str:
    """The field that is wrong first."""
    with pytest.raises(ValidationError) as error:
        kind.model_validate(value)
    return str(error.value.errors()[0]["loc"][0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("frequency_penalty", 0.5),
        ("presence_penalty", -1),
        ("logit_bias", {"5": 1}),
        ("tools", [{"type": "function"}]),
        ("functions", [{}]),
        ("tool_choice", "required"),
        ("response_format", {"type": "json_object"}),
        ("top_logprobs", 3),
        ("modalities", ["audio"]),
        ("audio", {"voice": "x"}),
        ("web_search_options", {}),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("top_p", 0),
        ("top_p", 1.5),
        ("max_tokens", 0),
        ("max_completion_tokens", -5),
        ("seed", 2**63),
        ("seed", "x"),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", [""]),
        ("stop", 5),
        ("stream", "perhaps"),
        ("stream", 1),
        ("seed", "5"),
        ("max_tokens", "5"),
        ("max_tokens", 5.5),
        ("temperature", "1"),
        ("temperature", True),
        ("messages", []),
        ("messages", [{"role": "tool", "content": "x"}]),
        ("messages", [{"role": "user", "content": None}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        ("messages", [{"role": "user", "content": "\ud800"}]),
        ("messages", [{"role": "system", "content": "only rules"}]),
        ("messages", "hi"),
        ("model", 5),
        ("model", "x" * 1001),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(field: str, value: Any) -> None:
    assert refused(ChatRequest, {**CHAT, field: value}) == field


@pytest.mark.parametrize(
    ("kind", "good", "field", "value"),
    [
        (CompletionRequest, PROMPT, "echo", True),
        (CompletionRequest, PROMPT, "suffix", "x"),
        (CompletionRequest, PROMPT, "best_of", 2),
        (CompletionRequest, PROMPT, "logprobs", 2),
        (Sliders, {}, "values", {"formal-casual": float("inf")}),
        (Sliders, {}, "values", {"formal-casual": 11}),
        (NewProfile, {}, "name", "x" * 65),
        (NewProfile, {"name": "x"}, "budget", 0),
        (NewProfile, {"name": "x"}, "language", "fr"),
        (ChoiceRequest, CHOICE, "outcome", 2),
    ],
)
def test_so_it_is_in_other_requests(kind: Any, good: dict[str, Any], field: str, value: Any) -> None:
    assert refused(kind, {**good, field: value}) == field


def test_values_that_ask_for_nothing_and_unknown_fields_pass() -> None:
    ChatRequest.model_validate(
        {
            **CHAT,
            "n": 1,
            "frequency_penalty": 0.0,
            "presence_penalty": None,
            "logit_bias": {},
            "tools": [],
            "tool_choice": "none",
            "response_format": {"type": "text"},
            "top_logprobs": 0,
            "user": "someone",
            "metadata": {"a": "b"},
            "store": True,
            "a field of tomorrow": 1,
        }
    )
    CompletionRequest.model_validate({"model": "base", "prompt": [5, 6], "echo": False, "best_of": 1, "logprobs": 0})


def test_messages_become_turns_that_templates_know() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]
    request = ChatRequest.model_validate({**CHAT, "messages": messages})
    assert [m.turn for m in request.messages] == [("system", "be brief"), ("user", "one two")]


def test_stops_are_a_list_whatever_was_sent() -> None:
    assert ChatRequest.model_validate({**CHAT, "stop": "x"}).stops == ["x"]
    assert ChatRequest.model_validate({**CHAT, "stop": ["x", "y"]}).stops == ["x", "y"]
    assert ChatRequest.model_validate(CHAT).stops == []


def test_a_choice_is_for_one_side_or_for_none() -> None:
    for outcome in (0, 0.5, 1, 1.0):
        ChoiceRequest.model_validate({**CHOICE, "outcome": outcome})


def test_errors_have_openai_shape_and_the_status_of_their_kind() -> None:
    status, body = body_of(RefusedError("no", status=429, code="queue_full", param="x"))
    assert status == 429
    assert body == {"error": {"message": "no", "type": "rate_limit_error", "param": "x", "code": "queue_full"}}
    assert body_of(InputError("no"))[0] == 400
    assert body_of(ModelError("no"))[0] == 400  # never 422
    assert body_of(WrongModelError("no"))[0] == 409
    assert body_of(RefusedError("no", status=500, code="internal_error"))[1]["error"]["type"] == "server_error"


def test_an_event_is_one_line_of_ascii() -> None:
    text = event({"text": "line\u2028separator\u0085 바다\n"}).decode("ascii")
    assert text.startswith("data: ")
    assert text.endswith("\n\n")
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize(
    ("kind", "change", "place", "words"),
    [
        (ChatRequest, {"stop": list("abcde")}, ("stop",), "at most 4"),
        (ChatRequest, {"stop": {"a": 1}}, ("stop",), "a list of up to 4 texts"),
        (
            ChatRequest,
            {"messages": [{"role": "user", "content": None}]},
            ("messages", 0, "content"),
            "Send a text, or a list",
        ),
        (
            ChatRequest,
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            ("messages", 0, "content", 0, "text"),
            "required",
        ),
        (ChatRequest, {"messages": [{"role": "user", "content": []}]}, ("messages", 0, "content"), "at least 1"),
        (CompletionRequest, {"prompt": ["a", "b"]}, ("prompt",), "at most 1"),
        (CompletionRequest, {"prompt": [[1], [2]]}, ("prompt",), "at most 1"),
        (CompletionRequest, {"prompt": []}, ("prompt",), "one text, or one list of token ids"),
        (CompletionRequest, {"prompt": [1, "a"]}, ("prompt", 1), "valid integer"),
    ],
)
def test_what_is_wrong_is_said_of_the_alternative_that_was_meant(
    kind: Any, change: dict[str, Any], place: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(ValidationError) as error:
        kind.model_validate({**CHAT, "prompt": "x", **change})
    (problem,) = error.value.errors()
    assert tuple(part for part in problem["loc"] if not str(part).startswith(TAG)) == place
    assert words in problem["msg"]


def test_null_is_what_was_not_set() -> None:
    request = ChatRequest.model_validate(
        {**CHAT, "stream_options": {"include_usage": None}, "stop": None, "tools": None}
    )
    assert not request.usage_asked
    assert CompletionRequest.model_validate({"model": "base", "prompt": [[5, 6]], "n": None}).asked == [5, 6]
