"""The rows of a training set, and what is wrong with them, row by row."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.errors import InputError, PromptFileError
from burnish.prompts import Prompt, PromptSet
from burnish.prompts.layouts import BETTER, WORSE, parsed_row
from burnish.prompts.table_files import TABLES, TALKS, Row, is_table, read_table_rows

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
        for number, prompt in enumerate(source.prompts, 1):
            if prompt.answer is None or not prompt.answer.strip():
                raise InputError(f"Row {number} of '{source.name}' has no answer to learn. Write {EXAMPLE}.")
        return _checked(source.name, source.name, list(enumerate(source.prompts, 1)))
    if isinstance(source, str | Path):
        return read_rows(Path(source))
    return _checked(name, name, [(i, _row(Row(i, f"{name}, row {i}", dict(row)))) for i, row in enumerate(source, 1)])


def read_rows(path: Path) -> TrainingRows:
    """Reads a table (`burnish.prompts.table_files`) of rows with an answer, or with a better and a worse one, in any of the layouts that
    prompts are read in.

    Raises PromptFileError naming file and row.
    """
    if not is_table(path):
        if not path.exists():
            raise PromptFileError(f"{path} does not exist. Pass a {', '.join(TABLES)} file with {EXAMPLE}.")
        raise PromptFileError(
            f"{path} ends in '{path.suffix}', which is no table of training rows. Pass one of {', '.join(TABLES)} with {EXAMPLE}."
        )
    return _checked(path.stem, str(path), [(row.number, _row(row)) for row in read_table_rows(path)])


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


def _row(row: Row) -> Prompt:
    """One row in any of its forms."""
    for keys in (BETTER, WORSE):
        empty = [key for key in keys if isinstance(row.values.get(key), str) and not row.values[key].strip()]
        if empty:
            raise PromptFileError(f"{row.where}: '{empty[0]}' is empty. Fill it, or remove the row.")
    there = [key for key in BETTER if key in row.values]
    if len(there) > 1:
        raise PromptFileError(f"{row.where} has both '{there[0]}' and '{there[1]}'. Leave one of them out.")
    if "rejected" in row.values and not there:
        raise PromptFileError(
            f"{row.where} has no 'chosen' (columns: {', '.join(row.values)}). Add what is better than 'rejected'."
        )
    turns, answer, rejected = parsed_row(row)
    if answer is None and rejected is not None:
        raise PromptFileError(
            f"{row.where} holds an answer that is marked as bad (label: false). Leave such rows out, or write chosen and rejected side by side."
        )
    if answer is None:
        talk = next((key for key in TALKS if key in row.values), None)
        if talk is not None:
            raise PromptFileError(f"{row.where}: '{talk}' must end with the assistant's answer after the user's turn.")
        raise PromptFileError(
            f"{row.where} has no 'completion' (columns: {', '.join(row.values)}). Name the columns prompt and completion, or prompt, chosen "
            "and rejected, or messages."
        )
    if there == ["chosen"] and rejected is None:
        raise PromptFileError(
            f"{row.where} has no 'rejected' (columns: {', '.join(row.values)}). Add what is worse than 'chosen'."
        )
    return Prompt(turns, answer.strip(), None if rejected is None else rejected.strip())


def _mark(prompt: Prompt, seed: int) -> str:
    text = json.dumps([seed, prompt.messages, prompt.answer, prompt.rejected], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
