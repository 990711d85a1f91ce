"""What a model can read: how many tokens it knows, how many it takes at once, and text that is text."""

from typing import Any

from burnish.errors import InputError
from burnish.model.skeleton import text_config

LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len")  # names of the context's length in configs
POSITIONS = ("pos", "wpe")  # parts of the names of tables of positions
SPARE = 2  # rows that some tables of positions have beyond the context


def known_tokens(network: Any) -> int:
    """Rows of the table of tokens: ids from here on stand for nothing."""
    return int(network.get_input_embeddings().weight.shape[0])


def context_length(network: Any) -> int | None:
    """The longest sequence the model was made for, where its config says so."""
    text = text_config(network.config)
    return next((int(length) for name in LENGTHS if (length := getattr(text, name, None))), None)


def stored_positions(network: Any, context: int) -> bool:
    """Whether positions are rows of a table, so that the model cannot read beyond its context at all (rotary positions are computed)."""
    tables = (*network.named_parameters(), *network.named_buffers())
    return any(
        tensor.ndim == 2 and context <= len(tensor) <= context + SPARE and any(part in name for part in POSITIONS)
        for name, tensor in tables
    )


def require_text(text: str) -> None:
    """Raises InputError for halves of surrogate pairs, which JSON and some terminals let through and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{text[max(0, error.start - 20) : error.start]!r} is followed by half of a surrogate pair, which is no character. Remove it, or "
            "save the text as UTF-8 again."
        ) from error
