"""Turns as a model's chat template writes them, with every word in place.

A template is a stranger's program: it runs in jinja's sandbox, without files, network or Python's own objects.
"""

import re
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from threading import Timer
from typing import Any

from jinja2 import TemplateError

from burnish.errors import BurnishWarning, ModelError

SLOW = 20  # seconds
PART = re.compile("""['"]type['"]: ?['"]text""")  # a part that a template writes as it is, and not as its text
TEMPLATE_ERRORS = (
    TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
    MemoryError,
)


def templated(tokenizer: Any, name: str, turns: list[dict[str, str]], *, asked: bool) -> str:
    """Turns as texts or, where the template wants those, as lists of parts.

    Args:
        tokenizer: has a chat template.
        name: of the model, for errors.
        turns: roles and contents.
        asked: an answer follows; else the last turn is an answer to be learnt, whose words are not looked for.

    Returns:
        The rendered text.

    Raises:
        ModelError: the template fails, or leaves out words of a turn.
    """
    text, heard = _applied(tokenizer, name, turns, asked=asked), turns if asked else turns[:-1]
    lost = _lost(text, heard)
    if lost is None:
        return text
    with suppress(ModelError):
        parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        text = _applied(tokenizer, name, parts, asked=asked)
        if _lost(text, heard) is None and not PART.search(text):
            return text
    raise ModelError(
        f"The chat template of {name} leaves out what the {lost['role']} says ({lost['content'][:60]!r}), so that the model would "
        "never read it. Mend the template (chat_template.jinja, or chat_template in tokenizer_config.json), or pass another model."
    )


def _applied(tokenizer: Any, name: str, turns: Sequence[dict[str, Any]], *, asked: bool) -> str:
    """Raises ModelError for a template that fails. One that never ends cannot be stopped; it is said that it takes long."""
    long = f"The chat template of {name} has been running for {SLOW} seconds: it may never end. Stop with Ctrl-C."
    watch = Timer(SLOW, warnings.warn, (long, BurnishWarning))
    watch.daemon = True
    watch.start()
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asked))
    except TEMPLATE_ERRORS as error:
        raise ModelError(
            f"The chat template of {name} fails: {str(error)[:200]!r}. Pass a model with a template that works, or remove it."
        ) from error
    finally:
        watch.cancel()


def _lost(text: str, turns: Iterable[dict[str, str]]) -> dict[str, str] | None:
    """The first turn whose words are not in a rendered text, each in a place of its own, whatever became of the white space. Templates
    leave out an assistant's thoughts."""
    left = " ".join(text.split())
    for turn in sorted(turns, key=lambda turn: -len(turn["content"])):  # longer ones may hold a shorter one
        words = " ".join(turn["content"].split())
        if turn["role"] == "assistant" and words not in left:
            words = words.rpartition("</think>")[2].strip()
        before, place, after = left.partition(words) if words else (left, " ", "")
        if not place:
            return turn
        left = f"{before}\0{after}"
    return None
