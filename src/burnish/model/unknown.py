"""Characters that a tokenizer has no token for."""

from typing import Any

RARE = "\N{UGARITIC LETTER ALPA}"  # a letter that no vocabulary holds as a whole


def leaves_out(tokenizer: Any) -> bool:
    """Whether a tokenizer leaves out what it has no token for. Slow ones do not say which characters that would be."""
    return bool(tokenizer.is_fast) and not tokenizer(RARE, add_special_tokens=False)["input_ids"]


def lost_characters(tokenizer: Any, text: str, ids: list[int], *, left_out: bool) -> str:
    """How a model reads a text otherwise than it was written.

    Args:
        tokenizer: a transformers tokenizer.
        text: what was written.
        ids: its tokens.
        left_out: as `leaves_out` says of the tokenizer.

    Returns:
        Words such as "as <unk>"; empty where nothing is lost.
    """
    if _stands_for_unknown(tokenizer) in ids and tokenizer.unk_token not in text:
        return f"as {tokenizer.unk_token}"
    if left_out:
        dropped = _dropped(tokenizer, text)
        return f"without {dropped[:20]!r}" if dropped else ""
    return ""


def _stands_for_unknown(tokenizer: Any) -> int | None:
    """The token of unknown characters, where it stands for nothing else."""
    unknown: int | None = tokenizer.unk_token_id
    return None if unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) else unknown


def _dropped(tokenizer: Any, text: str) -> str:
    """The characters of a text that are in none of its tokens."""
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    covered = {place for start, end in places for place in range(start, end)}
    return "".join(c for place, c in enumerate(text) if place not in covered and not c.isspace())
