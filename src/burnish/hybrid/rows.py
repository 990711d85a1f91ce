"""Reads the rows of a training set (JSON lines, CSV, Parquet) and says what is wrong with them, row by row."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.errors import InputError, PromptFileError
from burnish.prompts import Prompt, PromptSet
from burnish.prompts.reading import json_object

FORMATS = (".jsonl", ".ndjson", ".csv", ".parquet")
ROW = '{"prompt": "...", "completion": "..."}'
EXAMPLE = f"rows such as {ROW}"


@dataclass(frozen=True)
class TrainingRows:
    """Prompts with what is to be answered; preference rows also have a rejected answer."""

    name: str
    prompts: tuple[Prompt, ...]  # each with an answer
    numbers: tuple[int, ...]  # of each row, as an editor or a table counts them, from 1
    preference: bool

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def hash(self) -> str:
        return PromptSet(self.name, self.prompts).hash

    def pick(self, indices: Sequence[int]) -> "TrainingRows":
        """Some of the rows, in the order given."""
        return TrainingRows(
            self.name,
            tuple(self.prompts[i] for i in indices),
            tuple(self.numbers[i] for i in indices),
            self.preference,
        )

    def split(self, share: float, seed: int) -> "tuple[TrainingRows, TrainingRows]":
        """(rows to train on, rows held out). Chosen by the rows' own hashes: neither their order nor other rows matter much,
        and one row at least is left to train on."""
        count = min(int(len(self) * share), len(self) - 1)
        marks = [_mark(prompt, seed) for prompt in self.prompts]
        held = set(sorted(range(len(self)), key=lambda i: (marks[i], i))[:count])
        return (
            self.pick([i for i in range(len(self)) if i not in held]),
            self.pick(sorted(held)),
        )


RowSource = TrainingRows | PromptSet | Path | str | Sequence[Mapping[str, Any]]


def as_rows(source: RowSource, name: str = "rows") -> TrainingRows:
    """A training set as it is, a file read, or rows as mappings. Raises PromptFileError, InputError."""
    if isinstance(source, TrainingRows):
        return source
    if isinstance(source, PromptSet):
        found = [_from_prompt(source.name, i, prompt) for i, prompt in enumerate(source.prompts, 1)]
        return _checked(source.name, source.name, list(enumerate(found, 1)))
    if isinstance(source, str | Path):
        return read_rows(Path(source))
    return _checked(name, name, [(i, _row(f"{name}, row {i}", row)) for i, row in enumerate(source, 1)])


def read_rows(path: Path) -> TrainingRows:
    """Reads `.jsonl`, `.csv` or `.parquet`: `prompt` and `completion`, or `messages` that end with the assistant's, or `prompt`,
    `chosen` and `rejected`. A prompt or an answer may be a text or a list of messages (not in CSV).

    Raises PromptFileError naming file and row.
    """
    if not path.exists():
        raise PromptFileError(f"{path} does not exist. Pass a {', '.join(FORMATS)} file with {EXAMPLE}.")
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            rows = _json_lines(path)
        case ".csv":
            rows = _csv_rows(path)
        case ".parquet":
            rows = _parquet_rows(path)
        case ending:
            raise PromptFileError(
                f"{path} ends in '{ending}', which is no table of training rows. Pass one of {', '.join(FORMATS)} with {EXAMPLE}."
            )
    return _checked(path.stem, str(path), [(number, _row(where, row)) for number, where, row in rows])


def _checked(name: str, where: str, rows: list[tuple[int, Prompt]]) -> TrainingRows:
    if not rows:
        raise PromptFileError(f"{where} holds no rows: it is empty. Write {EXAMPLE}.")
    preferring = [prompt.rejected is not None for _, prompt in rows]
    if any(preferring) != all(preferring):
        odd = next(n for (n, _), kind in zip(rows, preferring, strict=True) if kind != preferring[0])
        raise PromptFileError(
            f"{where}, row {odd}: preference rows (chosen, rejected) and answered rows (completion) are mixed, and each needs another "
            "kind of training. Put them into two files and train twice."
        )
    return TrainingRows(name, tuple(p for _, p in rows), tuple(n for n, _ in rows), preferring[0])


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptFileError(f"{path} is not UTF-8. Save the file as UTF-8.") from error


def _json_lines(path: Path) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    for number, line in enumerate(io.StringIO(_text(path), newline=None), 1):
        if not line.strip():
            continue
        where = f"{path}, row {number}"
        yield number, where, json_object(where, line, ROW)


def _csv_rows(path: Path) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    for row in reader:
        filled = {key: value for key, value in row.items() if key is not None and value is not None}
        yield reader.line_num, f"{path}, row {reader.line_num}", filled


def _parquet_rows(path: Path) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise InputError(
            f"{path} is a Parquet file, and pyarrow, which reads them, is not installed. Run `pip install 'burnish[train]'`."
        ) from error
    try:
        table = parquet.read_table(path)
    except ArrowInvalid as error:
        raise PromptFileError(f"{path} is not a readable Parquet file ({error}). Write it again.") from error
    for number, row in enumerate(table.to_pylist(), 1):
        yield number, f"{path}, row {number}", {key: value for key, value in row.items() if value is not None}


def _row(where: str, row: Mapping[str, Any]) -> Prompt:
    """One row in any of its forms."""
    if "messages" in row:
        turns = _turns(where, "messages", row["messages"])
        if len(turns) < 2 or turns[-1][0] != "assistant":
            raise PromptFileError(f"{where}: 'messages' must end with the assistant's answer after the user's turn.")
        return Prompt(_asked(where, turns[:-1]), turns[-1][1])
    missing = [key for key in ("prompt",) if key not in row]
    if "chosen" in row or "rejected" in row:
        missing += [key for key in ("chosen", "rejected") if key not in row]
    elif "completion" not in row:
        missing.append("completion")
    if missing:
        raise PromptFileError(
            f"{where} has no {' and no '.join(repr(m) for m in missing)} (columns: {', '.join(map(str, row)) or 'none'}). Name the columns "
            "prompt and completion, or prompt, chosen and rejected, or messages."
        )
    asked = row["prompt"]
    turns = (("user", _filled(where, "prompt", asked)),) if isinstance(asked, str) else _turns(where, "prompt", asked)
    answers = [_answer(where, key, row[key]) for key in ("completion", "chosen", "rejected") if key in row]
    if "chosen" in row and "completion" in row:
        raise PromptFileError(f"{where} has both 'completion' and 'chosen'. Leave one of them out.")
    return Prompt(_asked(where, turns), *answers)


def _from_prompt(name: str, number: int, prompt: Prompt) -> Prompt:
    if prompt.answer is None or not prompt.answer.strip():
        raise InputError(f"Row {number} of '{name}' has no answer to learn. Write {EXAMPLE}.")
    return prompt


def _turns(where: str, key: str, messages: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(messages, list) or not messages:
        raise PromptFileError(f"{where}: '{key}' is neither a text nor a list of messages. Give one of the two.")
    found = []
    for turn in messages:
        if not isinstance(turn, dict) or not all(isinstance(turn.get(part), str) for part in ("role", "content")):
            raise PromptFileError(f"{where}: a message in '{key}' needs the texts 'role' and 'content'.")
        found.append((turn["role"], _filled(where, key, turn["content"])))
    return tuple(found)


def _asked(where: str, turns: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    if not turns or turns[-1][0] != "user":
        raise PromptFileError(f"{where}: before the answer comes no user's turn. End the prompt with one.")
    return turns


def _answer(where: str, key: str, value: object) -> str:
    if isinstance(value, str):
        return _filled(where, key, value)
    turns = _turns(where, key, value)
    if len(turns) != 1 or turns[0][0] != "assistant":
        raise PromptFileError(f"{where}: '{key}' must be a text or one message of the assistant.")
    return turns[0][1]


def _filled(where: str, key: str, text: str) -> str:
    if not text.strip():
        raise PromptFileError(f"{where}: '{key}' is empty. Fill it, or remove the row.")
    return text.strip()


def _mark(prompt: Prompt, seed: int) -> str:
    text = json.dumps([seed, prompt.messages, prompt.answer, prompt.rejected], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
