"""Tokens become text: pieces joined are the decoded answer, characters are never cut, stop strings are held back."""

import random
from typing import Any

import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st

from burnish.model.detokenizer import BROKEN, Detokenizer, StopStrings
from families import build_tokenizer

TEXTS = ["plain words", "한국어 텍스트", "na\u00efve caf\u00e9 👩‍👩‍👧 end", " leading", "trailing \n", "a\ufffdb"]


@pytest.fixture(scope="module")
def byte_level() -> Any:
    """A token for every byte."""
    return build_tokenizer()


@pytest.fixture(scope="module")
def sentence_piece() -> Any:
    """Words that begin with a sign for the space, which decoding drops at the beginning; single bytes for the rest."""
    words = ["▁", "▁the", "▁sea", "the", "s", *(f"<0x{byte:02X}>" for byte in range(256))]
    model = tokenizers.models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[], byte_fallback=True)
    inner = tokenizers.Tokenizer(model)
    inner.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner)


def decoded(tokenizer: Any, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def pieces(tokenizer: Any, tokens: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.add(token) for token in tokens), detokenizer.rest()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_joined_are_the_text_and_none_holds_half_a_character(text: str, byte_level: Any) -> None:
    parts = pieces(byte_level, byte_level(text, add_special_tokens=False)["input_ids"])
    assert "".join(parts) == text
    assert all(BROKEN not in piece for piece in parts) == (BROKEN not in text)


def test_any_bytes_give_what_decoding_all_of_them_gives_without_a_cut_character_at_the_end(byte_level: Any) -> None:
    chance = random.Random(0)
    for _ in range(200):
        tokens = [chance.randrange(3, 259) for _ in range(chance.randrange(40))]
        assert "".join(pieces(byte_level, tokens)) == decoded(byte_level, tokens).rstrip(BROKEN)


def test_an_answer_cut_inside_a_character_ends_before_it(byte_level: Any) -> None:
    tokens = byte_level("sea 바", add_special_tokens=False)["input_ids"]
    assert "".join(pieces(byte_level, tokens[:-1])) == "sea "


def test_spaces_that_decoding_drops_at_the_beginning_are_kept_inside(sentence_piece: Any) -> None:
    korean = [5 + byte for byte in "바다".encode()]
    for tokens in ([1, 2, 1], [0, 3, 2], [0, 0, 3], [1, *korean, 2], [*korean, 0, 3]):
        assert "".join(pieces(sentence_piece, tokens)) == decoded(sentence_piece, tokens)


def test_special_tokens_leave_no_trace(byte_level: Any) -> None:
    assert "".join(pieces(byte_level, [1, *byte_level("hi", add_special_tokens=False)["input_ids"], 2, 0])) == "hi"


def test_an_unfinished_beginning_of_a_stop_string_waits_for_the_next_piece() -> None:
    gate = StopStrings(["END", "\n\n"])
    assert [gate.add(t) for t in ("on", "e E", "N", "ough", "\n", "x", "E", "ND more", "after")] == [
        "on",
        "e ",
        "",
        "ENough",
        "",
        "\nx",
        "",
        "",
        "",
    ]
    assert gate.reached
    assert gate.rest() == ""


def test_what_was_held_back_comes_out_when_the_answer_ends() -> None:
    gate = StopStrings(["END"])
    assert gate.add("the EN") == "the "
    assert gate.rest() == "EN"
    assert not gate.reached


@given(st.text("abE\n", max_size=30), st.lists(st.text("abE\n", min_size=1, max_size=3), max_size=4), st.randoms())
def test_text_ends_before_the_first_stop_string_however_it_is_cut(text: str, stops: list[str], chance: Any) -> None:
    gate, shown, place = StopStrings(stops), "", 0
    while place < len(text) and not gate.reached:
        size = chance.randint(1, 4)
        shown += gate.add(text[place : place + size])
        place += size
    shown += gate.rest()
    ends = [text.find(stop) for stop in stops if stop in text[:place]]
    assert gate.reached == bool(ends)
    assert shown == (text[: min(ends)] if ends else text)
