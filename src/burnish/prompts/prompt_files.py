"""Prompts and sets of them, and the files they are read from."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from burnish.errors import PromptFileError
from burnish.prompts.layouts import parsed_row
from burnish.prompts.table_files import is_hub, is_table, read_lines, read_table_rows


@dataclass(frozen=True)
class Prompt:
    """One prompt: chat turns ending with the user's, and an answer (and a worse one) where the file has them."""

    messages: tuple[tuple[str, str], ...]  # (role, content)
    answer: str | None = None
    rejected: str | None = None

    @property
    def text(self) -> str:
        """The user's last words."""
        return self.messages[-1][1]

    @staticmethod
    def of(text: str, answer: str | None = None, rejected: str | None = None) -> "Prompt":
        return Prompt((("user", text),), answer, rejected)


@dataclass(frozen=True)
class PromptSet:
    """Prompts in file order, with the name they are reported under."""

    name: str
    prompts: tuple[Prompt, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def hash(self) -> str:
        """SHA-256 of the prompts and answers, whatever file format they came in."""
        rows = [[list(map(list, p.messages)), p.answer, p.rejected] for p in self.prompts]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()

    @property
    def different(self) -> int:
        """How many prompts there are, each counted once."""
        return len(set(self.prompts))

    def without(self, other: "PromptSet") -> "PromptSet":
        """The prompts that are not in another set."""
        there = set(other.prompts)
        return PromptSet(self.name, tuple(prompt for prompt in self.prompts if prompt not in there))

    @property
    def texts(self) -> list[str]:
        return [prompt.text for prompt in self.prompts]

    def split(self, count: int, seed: int) -> tuple["PromptSet", "PromptSet"]:
        """A seeded sample of `count` prompts, in file order, and the rest. Fewer prompts than asked: all, and no rest."""
        chosen = set(random.Random(seed).sample(range(len(self)), min(count, len(self))))
        taken = tuple(p for i, p in enumerate(self.prompts) if i in chosen)
        others = tuple(p for i, p in enumerate(self.prompts) if i not in chosen)
        return PromptSet(self.name, taken), PromptSet(self.name, others)

    def spread(self, count: int) -> "PromptSet":
        """At most `count` prompts, evenly spaced, so that every part of the set is there."""
        if len(self) <= count:
            return self
        return PromptSet(self.name, tuple(self.prompts[i * len(self) // count] for i in range(count)))

    def without_answers(self) -> "PromptSet":
        """The same prompts, to be answered by a model."""
        return PromptSet(self.name, tuple(Prompt(p.messages) for p in self.prompts))

    def joined(self, other: "PromptSet") -> "PromptSet":
        return PromptSet(f"{self.name} + {other.name}", self.prompts + other.prompts)


PromptSource = PromptSet | Path | str | Sequence[str]  # a set, a file, or texts


def as_prompts(source: PromptSource, name: str) -> PromptSet:
    """A set as it is, a file read, or a list of texts under `name`. Raises PromptFileError."""
    if isinstance(source, PromptSet):
        return source
    if isinstance(source, str | Path):
        return read_prompts(source)
    return PromptSet(name, tuple(Prompt.of(text) for text in source))


def read_prompts(path: Path | str, *, answers: bool = False) -> PromptSet:
    """Reads one prompt a line, or a table of rows in any of the layouts of `burnish.prompts.layouts`.

    An answer is called `answer`, `completion`, `chosen`, `final`, `output` or `response`, a worse one `rejected` or `draft`;
    the first that is there counts. UTF-8, or UTF-16 with its mark; blank lines are ignored.

    Args:
        path: `.txt`, `.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`, or a data set of the hub as `hf://datasets/OWNER/NAME:SPLIT`.
        answers: every row must carry an answer.

    Returns:
        The prompts, in order.

    Raises:
        PromptFileError: a row cannot be read; the message names file and row.
        MissingExtraError: the library that reads the format (the `train` extra) is not installed.
    """
    path = Path(path)
    if is_table(path):
        prompts = [Prompt(*parsed_row(row)) for row in read_table_rows(path)]
    else:
        prompts = [Prompt.of(line.strip()) for _, line in read_lines(path)]
    if not prompts:
        raise PromptFileError(f"{path} holds no prompts: it is empty. Write one prompt a line, 95 for the default.")
    if answers and any(p.answer is None for p in prompts):
        first = next(i for i, p in enumerate(prompts, 1) if p.answer is None)
        raise PromptFileError(
            f"{path}, row {first} has no answer, and --position answer needs one in every row. "
            'Write rows such as {"prompt": "...", "answer": "..."} in a .jsonl file.'
        )
    return PromptSet(path.name if is_hub(path) else path.stem, tuple(prompts))
