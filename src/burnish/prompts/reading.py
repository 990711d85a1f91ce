"""Reads prompt files: one prompt a line, JSON lines, or CSV."""

import csv
import hashlib
import io
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.errors import PromptFileError

BETTER = ("answer", "completion", "chosen", "final")  # keys of an answer, in the order in which they are looked for
WORSE = ("rejected", "draft")


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
    def texts(self) -> list[str]:
        return [prompt.text for prompt in self.prompts]

    def split(self, count: int, seed: int) -> tuple["PromptSet", "PromptSet"]:
        """A seeded sample of `count` prompts, in file order, and the rest. Fewer prompts than asked: all, and no
        rest."""
        if count >= len(self):
            return self, PromptSet(self.name, ())
        chosen = set(random.Random(seed).sample(range(len(self)), count))
        taken = tuple(p for i, p in enumerate(self.prompts) if i in chosen)
        return PromptSet(self.name, taken), PromptSet(
            self.name, tuple(p for i, p in enumerate(self.prompts) if i not in chosen)
        )

    def spread(self, count: int) -> "PromptSet":
        """At most `count` prompts, evenly spaced, so that every part of the set is there."""
        if len(self) <= count:
            return self
        return PromptSet(self.name, tuple(self.prompts[i * len(self) // count] for i in range(count)))

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
    """Reads `.jsonl` (`prompt` or `messages`, optional answers), `.csv` (the same columns) or one prompt a line.

    An answer is called `answer`, `completion`, `chosen` or `final`, a worse one `rejected` or `draft`; the first that
    is there counts. answers: every row must carry an answer. UTF-8 with or without BOM; blank lines are ignored. Raises
    PromptFileError naming file and line.
    """
    path = Path(path)
    text = _text(path)
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            prompts = [_json_row(path, n, line) for n, line in _filled(text)]
        case ".csv":
            prompts = list(_csv_rows(path, text))
        case _:
            prompts = [Prompt.of(line.strip()) for _, line in _filled(text)]
    if not prompts:
        raise PromptFileError(f"{path} holds no prompts: it is empty. Write one prompt a line, 95 for the default.")
    if answers and any(p.answer is None for p in prompts):
        first = next(i for i, p in enumerate(prompts, 1) if p.answer is None)
        raise PromptFileError(
            f"{path}, row {first} has no answer, and --position answer needs one in every row. "
            'Write rows such as {"prompt": "...", "answer": "..."} in a .jsonl file.'
        )
    return PromptSet(path.stem, tuple(prompts))


def _text(path: Path) -> str:
    if not path.exists():
        raise PromptFileError(f"{path} does not exist. Pass a text file with one prompt a line.")
    if path.is_dir():
        raise PromptFileError(f"{path} is a folder. Pass a text file with one prompt a line.")
    data = path.read_bytes()
    if b"\0" in data[:65536]:
        raise PromptFileError(f"{path} is a binary file, not text. Pass a UTF-8 text file with one prompt a line.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise PromptFileError(f"{path}, line {line} is not UTF-8. Save the file as UTF-8.") from error


def _filled(text: str) -> Iterable[tuple[int, str]]:
    """Numbered lines that are not blank. Only line ends split: other Unicode separators belong to the prompt."""
    return ((number, line) for number, line in enumerate(io.StringIO(text, newline=None), 1) if line.strip())


def json_object(where: str, line: str, example: str) -> dict[str, Any]:
    """A line of a .jsonl file. where: the file and line, example: a good row, for the message. Raises PromptFileError."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise PromptFileError(f"{where} is not JSON: {error.msg}. Write one JSON object a line.") from error
    if not isinstance(row, dict):
        raise PromptFileError(f"{where} is not a JSON object. Write rows such as {example}.")
    return row


def _json_row(path: Path, number: int, line: str) -> Prompt:
    where = f"{path}, line {number}"
    row = json_object(where, line, '{"prompt": "..."}')
    answer, rejected = (next((row[key] for key in keys if row.get(key) is not None), None) for keys in (BETTER, WORSE))
    for name, text in (("answer", answer), ("rejected answer", rejected)):
        if text is not None and not (isinstance(text, str) and text.strip()):
            raise PromptFileError(f"{where}: the {name} is not a text. Give a string, or leave the key out.")
    if "messages" in row:
        return _chat(where, row["messages"], answer, rejected)
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise PromptFileError(f"{where} has no 'prompt' text (keys: {', '.join(map(str, row))}). Add one.")
    return Prompt.of(prompt.strip(), answer, rejected)


def _chat(where: str, messages: object, answer: str | None, rejected: str | None) -> Prompt:
    turns: list[tuple[str, str]] = []
    for turn in messages if isinstance(messages, list) else []:
        if not isinstance(turn, dict) or not all(isinstance(turn.get(key), str) for key in ("role", "content")):
            raise PromptFileError(f"{where}: a message needs the texts 'role' and 'content'.")
        turns.append((turn["role"], turn["content"]))
    if turns and turns[-1][0] == "assistant":
        answer = answer or turns[-1][1]
        turns.pop()
    if not turns or turns[-1][0] != "user":
        raise PromptFileError(f"{where}: 'messages' must hold a user turn last (or user, then assistant).")
    return Prompt(tuple(turns), answer, rejected)


def _csv_rows(path: Path, text: str) -> Iterable[Prompt]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if "prompt" not in (reader.fieldnames or []):
        raise PromptFileError(
            f"{path} has no 'prompt' column (columns: {', '.join(reader.fieldnames or []) or 'none'}). Name one 'prompt'."
        )
    for row in reader:
        prompt = (row.get("prompt") or "").strip()
        if not prompt and not any((value or "").strip() for value in row.values() if isinstance(value, str)):
            continue
        if not prompt:
            raise PromptFileError(f"{path}, line {reader.line_num} has an empty 'prompt'. Fill it or remove the row.")
        filled = {key: value.strip() for key, value in row.items() if isinstance(value, str) and value.strip()}
        answer, rejected = (next((filled[key] for key in keys if key in filled), None) for keys in (BETTER, WORSE))
        yield Prompt.of(prompt, answer, rejected)
