"""The answer to one request, piece by piece as its tokens come."""

from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from burnish.model.decoding import Finished
from burnish.model.detokenizer import Detokenizer, StopStrings, TokenText
from burnish.server.pending import Answering


@dataclass(frozen=True)
class Piece:
    """Text that may be shown, with the tokens that made it. The last piece of an answer says why it ends there."""

    text: str
    tokens: tuple[TokenText, ...]
    made: int  # tokens of the answer so far, without the one that ends it
    finished: Finished = ""


async def pieces_of(answering: Answering, tokenizer: Any, stops: Sequence[str]) -> AsyncIterator[Piece]:
    """Pieces with text, and a last one. Raises what `answering` raises; frees its row when the reader stops earlier."""
    detokenizer, gate = Detokenizer(tokenizer), StopStrings(stops)
    held: list[tuple[int, TokenText]] = []  # tokens whose text is not out yet, with where it begins
    written = shown = made = 0  # characters, characters, tokens
    with closing(answering):
        async for token in answering:
            text = ""
            if token.finished != "stop":  # the token that ends an answer is not a part of it
                made += 1
                text = detokenizer.add(token.token)
                if token.finished:
                    text += detokenizer.rest()
                held.append((written, TokenText(text, token.log_probability)))
            elif text := detokenizer.rest():
                start, last = held.pop()  # the token that began the character which never came
                held.append((start, replace(last, text=last.text + text)))
            written += len(text)
            out = gate.add(text)
            finished: Finished = "stop" if gate.reached else token.finished
            if token.finished and not gate.reached:
                out += gate.rest()
            shown += len(out)
            if out or finished:
                free = [entry for entry in held if finished or entry[0] + len(entry[1].text) <= shown]
                held = held[len(free) :]
                if gate.reached:
                    free = [(at, replace(t, text=t.text[: shown - at])) for at, t in free if at < shown]
                yield Piece(out, tuple(t for _, t in free), made, finished)
            if finished:
                return
