"""What requests may say. Fields that OpenAI has and this server cannot honour are refused by name; unknown ones are ignored."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from burnish.personal.profile import BUDGET
from burnish.server.expressions import LONGEST

TEXT, MESSAGES, NAME = 500_000, 1000, 64  # characters, messages, characters


def _valid(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no character") from None
    return text


def only(*harmless: Any) -> Callable[[Any], Any]:
    """Refuses every value of a field but those that ask for nothing."""

    def check(value: Any) -> Any:
        if value is not None and value not in harmless:
            listed = ", ".join(map(repr, harmless))
            raise ValueError(f"is not supported here: leave it out{f' or pass {listed}' if listed else ''}")
        return value

    return check


Text = Annotated[str, StringConstraints(max_length=TEXT), AfterValidator(_valid)]
Expression = Annotated[str, StringConstraints(max_length=LONGEST), AfterValidator(_valid)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=NAME), AfterValidator(_valid)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_valid)]
Nothing = Annotated[Any, AfterValidator(only([], {}))]


TAG = "("  # what the names of alternatives begin with, in the places of errors


def by_kind(needed: str) -> Discriminator:
    """Chooses among alternatives by the kind of the value, so that what is wrong is said of the one that was meant. needed: what to
    send, where it is none of them."""

    def kind(value: Any) -> str | None:
        if isinstance(value, list):
            first = next(iter(value), None)
            return "(list)" if first is None else f"({type(first).__name__}s)"
        return f"({type(value).__name__})"

    return Discriminator(kind, custom_error_type="kind", custom_error_message=f"Send {needed}")


class Body(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        """Clients send null for what is not set."""
        if not isinstance(value, dict):
            return value
        needed = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {name: each for name, each in value.items() if each is not None or name in needed}


class TextPart(Body):
    type: Literal["text"]
    text: Text


Parts = Annotated[list[TextPart], Field(min_length=1, max_length=100)]
Content = Annotated[
    Annotated[Text, Tag("(str)")] | Annotated[Parts, Tag("(dicts)")] | Annotated[Parts, Tag("(list)")],
    by_kind('a text, or a list of parts such as {"type": "text", "text": "..."}'),
]


class Message(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Content

    @property
    def turn(self) -> tuple[str, str]:
        """(role, text), with the names that chat templates know."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return "system" if self.role == "developer" else self.role, text


def _asks(messages: list[Message]) -> list[Message]:
    if all(message.turn[0] == "system" for message in messages):
        raise ValueError("needs a message of the user")
    return messages


Messages = Annotated[list[Message], Field(min_length=1, max_length=MESSAGES), AfterValidator(_asks)]


class StreamOptions(Body):
    include_usage: bool = False


StopList = Annotated[list[Stop], Field(max_length=4)]
Stops = Annotated[
    Annotated[Stop, Tag("(str)")] | Annotated[StopList, Tag("(strs)")] | Annotated[StopList, Tag("(list)")],
    by_kind("a text, or a list of up to 4 texts"),
]


class Sampled(Body):
    """What chat and text completions share."""

    model: Expression
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[Any, AfterValidator(only(1))] = None
    frequency_penalty: Annotated[Any, AfterValidator(only(0))] = None
    presence_penalty: Annotated[Any, AfterValidator(only(0))] = None
    logit_bias: Nothing = None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def usage_asked(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(Sampled):
    messages: Messages
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Any, AfterValidator(only(0))] = None
    tools: Nothing = None
    functions: Nothing = None
    tool_choice: Annotated[Any, AfterValidator(only("none", "auto"))] = None
    function_call: Annotated[Any, AfterValidator(only("none", "auto"))] = None
    response_format: Annotated[Any, AfterValidator(only({"type": "text"}))] = None
    modalities: Annotated[Any, AfterValidator(only(["text"]))] = None
    audio: Nothing = None
    prediction: Nothing = None
    web_search_options: Annotated[Any, AfterValidator(only())] = None

    @property
    def longest(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


Ids = Annotated[list[int], Field(min_length=1)]
Asked = Annotated[
    Annotated[Text, Tag("(str)")]
    | Annotated[list[Text], Field(min_length=1, max_length=1), Tag("(strs)")]
    | Annotated[Ids, Tag("(ints)")]
    | Annotated[list[Ids], Field(min_length=1, max_length=1), Tag("(lists)")],
    by_kind("one text, or one list of token ids"),
]


class CompletionRequest(Sampled):
    prompt: Asked
    logprobs: Annotated[Any, AfterValidator(only(0, False))] = None
    echo: Annotated[Any, AfterValidator(only(False))] = None
    suffix: Annotated[Any, AfterValidator(only(""))] = None
    best_of: Annotated[Any, AfterValidator(only(1))] = None

    @property
    def longest(self) -> int | None:
        return self.max_tokens

    @property
    def asked(self) -> str | list[int]:
        """The one prompt, which may stand in a list."""
        prompt: Any = self.prompt
        one: str | list[int] = prompt[0] if isinstance(prompt, list) and not isinstance(prompt[0], int) else prompt
        return one


class ExpressionRequest(Body):
    model: Expression


class NewProfile(Body):
    name: Annotated[Name, StringConstraints(pattern=r"^[^/.][^/]*$")]  # it becomes a part of a path
    budget: Annotated[float, Field(gt=0, le=10)] = BUDGET
    keep_text: bool = False
    language: Literal["en", "ko"] = "en"


class Sliders(Body):
    values: Annotated[dict[Name, Annotated[float, Field(ge=-10, le=10)]], Field(max_length=100)]


class PairRequest(Body):
    messages: Messages


class ChoiceRequest(Body):
    messages: Messages
    first: Text
    second: Text
    outcome: Literal[0, 0.5, 1]  # type: ignore[valid-type]
