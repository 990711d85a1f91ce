"""From a row to a prompt, in the layouts that people have: prompts, instructions, messages, conversations, preferences."""

import re
from collections.abc import Sequence
from typing import Any

from burnish.errors import PromptFileError
from burnish.prompts.table_files import ASKED, TALKS, Row

INSTRUCTIONS = ("system", "system_prompt")  # of what the model is told before
ABOUT = ("input", "context")  # of what an instruction or a question is about
EARLIER = "history"  # of pairs of a question and its answer
BETTER = ("answer", "completion", "chosen", "final", "output", "response")  # of an answer
WORSE = ("rejected", "draft")
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "developer": "system"}
TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")  # of a dialogue in one text, as in Anthropic's preferences
MESSAGES = re.compile(
    r"""\s*\[\s*\{\s*["'](role|from|content|value)["']\s*:"""
)  # a list of messages, written as a text

Turns = tuple[tuple[str, str], ...]  # (role, content)


def parsed_row(row: Row) -> tuple[Turns, str | None, str | None]:
    """(turns up to the user's last, answer, worse answer). Raises PromptFileError for a row in none of the layouts."""
    values = row.values
    better, worse = (next((key for key in keys if _there(values.get(key))), None) for keys in (BETTER, WORSE))
    inside, answer = _answer(row, better)
    _, rejected = _answer(row, worse)
    talk = next((key for key in TALKS if key in values), None)
    asked = next((key for key in ASKED if key in values), None)
    if talk is not None:
        turns = _turns(row, talk)
        if turns and turns[-1][0] == "assistant":
            answer = answer if answer is not None else turns[-1][1]
            turns = turns[:-1]
    elif asked is not None:
        turns = _asked(row, asked)
        if inside and inside[-1] != turns[-1]:
            raise PromptFileError(
                f"{row.where}: '{asked}' and the messages in '{better}' ask different things. Leave one of them out."
            )
        turns = inside or turns
    elif inside:
        talk, turns = better, inside
    else:
        raise PromptFileError(
            f"{row.where} has no 'prompt' (columns: {', '.join(values) or 'none'}). Name the columns prompt, and completion for answers, or "
            "prompt, chosen and rejected, or messages."
        )
    if not turns or turns[-1][0] != "user":
        raise PromptFileError(f"{row.where}: '{talk or asked}' must hold a user turn last (or user, then assistant).")
    if not turns[-1][1].strip():
        raise PromptFileError(
            f"{row.where}: the user's turn in '{talk or asked}' is empty. Fill it, or remove the row."
        )
    answer = answer if _there(answer) else None
    if better == "completion" and str(values.get("label")).casefold() == "false":  # marked as a bad one
        answer, rejected = None, answer if rejected is None else rejected
    return (*_told(row, turns), *turns), answer, rejected


def _there(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())


def _asked(row: Row, key: str) -> Turns:
    """The turns of a prompt, which is a text, a list of messages, or an instruction with its input."""
    value = row.values[key]
    if not isinstance(value, str):
        return _turns(row, key)
    if not value.strip():
        raise PromptFileError(f"{row.where}: '{key}' is empty. Fill it, or remove the row.")
    if MESSAGES.match(value):
        raise PromptFileError(
            f"{row.where}: '{key}' holds messages written as a text. Give them as a list, in JSON lines or Parquet."
        )
    parts = [value.strip()]
    for name in ABOUT:
        more = row.values.get(name)
        if name == key or not _there(more):
            continue
        if not isinstance(more, str):
            raise PromptFileError(
                f"{row.where}: '{name}' belongs to '{key}' and is no text. Write it as one, or leave it out."
            )
        if more.strip() not in value:  # where it is, the prompt was made of it
            parts.append(more.strip())
    text = "\n\n".join(parts)
    return (*_earlier(row), ("user", text))


def _told(row: Row, turns: Turns) -> Turns:
    """The system turn that stands in a column of its own."""
    name = next((name for name in INSTRUCTIONS if _there(row.values.get(name))), None)
    if name is None:
        return ()
    text = row.values[name]
    if not isinstance(text, str) or turns[0][0] == "system":
        raise PromptFileError(
            f"{row.where}: '{name}' is {'the second system turn' if isinstance(text, str) else 'no text'}. Give one text, or leave it out."
        )
    return (("system", text.strip()),)


def _earlier(row: Row) -> Turns:
    """The turns before an instruction that stand in a column of their own."""
    pairs = row.values.get(EARLIER) or []
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in pairs
    ):
        raise PromptFileError(
            f"{row.where}: '{EARLIER}' is no list of pairs (question, answer). Mend it, or leave it out."
        )
    return tuple(turn for question, answer in pairs for turn in (("user", question), ("assistant", answer)))


def _answer(row: Row, key: str | None) -> tuple[Turns, str | None]:
    """(turns that stand before an answer in the same cell, the answer)."""
    if key is None:
        return (), None
    value = row.values[key]
    if isinstance(value, str):
        parts = TURN.split(value) if value.lstrip().startswith("Human: ") else []
        if len(parts) < 5:  # what stands before, then role and content of each turn
            return (), value
        turns: Turns = tuple(
            (ROLES.get(r.lower(), r.lower()), c.strip()) for r, c in zip(parts[1::2], parts[2::2], strict=True)
        )
    else:
        turns = _turns(row, key)
    if turns[-1][0] != "assistant":
        raise PromptFileError(f"{row.where}: '{key}' must end with a message of the assistant.")
    return turns[:-1], turns[-1][1]


def _turns(row: Row, key: str) -> Turns:
    """A list of messages, with role and content or, as ShareGPT writes them, from and value; a content may be a list of text parts."""
    messages = row.values[key]
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes) or not messages:
        raise PromptFileError(f"{row.where}: '{key}' is neither a text nor a list of messages. Give one of the two.")
    return tuple(_turn(row, key, message) for message in messages)


def _is_text(part: dict[str, Any]) -> bool:
    return isinstance(part.get("text"), str) and part.get("type", "text") in ("text", "input_text", "output_text")


def _turn(row: Row, key: str, message: Any) -> tuple[str, str]:
    turn = message if isinstance(message, dict) else {}
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if isinstance(content, list) and all(isinstance(p, dict) and _is_text(p) for p in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise PromptFileError(f"{row.where}: a message in '{key}' needs the texts 'role' and 'content'.")
    return ROLES.get(role, role), content
