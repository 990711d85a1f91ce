"""Answers as pieces: text, the tokens that made it, and why it ends."""

import asyncio
import random
from typing import Any

import pytest

from burnish.model.decoding import DecodedToken, DecodeRequest, Finished
from burnish.model.detokenizer import BROKEN
from burnish.model.row_edits import Candidate
from burnish.server.answer_pieces import Piece, pieces_of
from burnish.server.pending import Answering
from families import build_tokenizer

TOKENIZER = build_tokenizer()
END = 2


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def answered(tokens: list[int], last: Finished, stops: list[str]) -> tuple[list[Piece], list[Answering]]:
    """(pieces, who left) of an answer of these tokens; at `stop` the end token follows."""
    left: list[Answering] = []

    async def main() -> list[Piece]:
        request = DecodeRequest([5], Candidate("base"), 99)
        answering = Answering("a", request, 5, left.append)
        rows = [*tokens, END] if last == "stop" else tokens
        for number, token in enumerate(rows):
            finished: Finished = last if number == len(rows) - 1 else ""
            answering.arrive(DecodedToken(0, token, -float(number), finished))
        return [piece async for piece in pieces_of(answering, TOKENIZER, stops)]

    return asyncio.run(main()), left


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


@pytest.mark.parametrize("last", ["stop", "length"])
def test_pieces_hold_each_token_once_and_the_whole_text(last: Finished) -> None:
    tokens = ids("a 바다 sea")
    pieces, left = answered(tokens, last, [])
    rows = [token for piece in pieces for token in piece.tokens]
    assert text_of(pieces) == "".join(row.text for row in rows) == "a 바다 sea"
    assert [row.log_probability for row in rows] == [-float(n) for n in range(len(tokens))]
    assert (pieces[-1].finished, pieces[-1].made) == (last, len(tokens))
    assert all(not piece.finished for piece in pieces[:-1])
    assert not left


def test_an_answer_of_nothing_is_one_empty_piece() -> None:
    assert answered([], "stop", [])[0] == [Piece("", (), 0, "stop")]


@pytest.mark.parametrize("last", ["stop", "length"])
def test_any_tokens_and_stops_give_the_decoded_answer_up_to_the_first_stop(last: Finished) -> None:
    chance = random.Random(0)
    for _ in range(150):
        tokens = [chance.randrange(3, 259) if chance.random() < 0.5 else chance.choice(ids("ab바")) for _ in range(12)]
        stops = chance.choice([[], ["a"], ["ab", "바"], ["ba", "b"]])
        pieces, _ = answered(tokens, last, stops)
        text = TOKENIZER.decode(tokens, skip_special_tokens=True).rstrip(BROKEN)
        ends: list[Any] = [text.find(stop) for stop in stops if stop in text]
        assert text_of(pieces) == (text[: min(ends)] if ends else text)
        assert "".join(token.text for piece in pieces for token in piece.tokens) == text_of(pieces)
