"""Rows of files: JSON lines, JSON, CSV, TSV and Parquet, and data sets of the hub; lines of text. One reader for every command."""

import codecs
import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.errors import PromptFileError
from burnish.extras import require

TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
LINES = (".txt", ".text", "")  # one prompt a line; no ending: a pipe, for example
EXAMPLE = '{"prompt": "..."}'
# Columns of a prompt, in the order in which they are looked for.
ASKED = ("prompt", "instruction", "question", "query", "text")
TALKS = ("messages", "conversations", "conversation")
HUB = "hf:/datasets/"  # of the hub's data sets, after a Path has taken one of the two slashes
MARKS = (  # of encodings, the longer ones first: the mark of UTF-16 begins that of UTF-32
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
COMMAS = ",;\t|"  # what may stand between cells; the first one wins a tie
NAMES = re.compile(rf'"?\w+"?(?:[{COMMAS}]"?\w+"?)+')  # of columns, side by side
JSON_BEGINS = re.compile(r'\[?\s*\{\s*"\w+"\s*:|\["')  # rows of JSON, whole or the first of several lines
OTHERWISE = (  # how a file begins that is no list of prompts, and what to do
    (
        re.compile(rb"version https://git-lfs\."),
        "is a pointer of Git LFS and not the file itself. Fetch it with `git lfs pull`",
    ),
    (
        re.compile(rb"<(!doctype|html|\?xml)", re.IGNORECASE),
        "is a page of the web and not the file itself. Download the raw file",
    ),
    (re.compile(rb"\{\\rtf"), "is a document with formats. Save it as plain text"),
)


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    number: int  # of its line, or of the row where a file has no lines; from 1
    where: str  # for messages
    values: dict[str, Any]  # without those that are null


def is_table(path: Path) -> bool:
    """Whether a file holds rows with columns, by its ending; a data set of the hub does."""
    return path.suffix.lower() in TABLES or is_hub(path)


def is_hub(path: Path) -> bool:
    return path.as_posix().startswith(HUB)


def read_table_rows(path: Path) -> list[Row]:
    """The rows of a table. Raises PromptFileError naming file and row, MissingExtraError without the library that reads a format."""
    if is_hub(path):
        from burnish.prompts.hub_sets import hub_rows

        return [_row(number, f"{path.name}, row {number}", row) for number, row in enumerate(hub_rows(path), 1)]
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return list(_json_lines(path, read_text(path)))
        case ".json":
            return _json_rows(path, read_text(path))
        case ".csv" | ".tsv":
            return list(_csv_rows(path, read_text(path)))
        case ".parquet":
            return list(_parquet_rows(path))
        case ending:
            raise PromptFileError(
                f"{path} ends in '{ending}', which is no table. Pass one of {', '.join(TABLES)}, with rows such as {EXAMPLE}."
            )


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank. Only line ends split: other Unicode separators belong to the text. Raises PromptFileError."""
    if path.suffix.lower() not in LINES:
        raise PromptFileError(
            f"{path} ends in '{path.suffix}', which is not read. Write one prompt a line into a .txt file, or rows such as {EXAMPLE} into "
            f"one of {', '.join(TABLES)}."
        )
    lines = list(_numbered(read_text(path)))
    if lines and _is_rows(lines[0][1]):
        raise PromptFileError(
            f"{path} holds rows such as {lines[0][1].strip()[:60]!r}, and with its ending each line would be a prompt. Give it the ending of "
            f"what it is, one of {', '.join(TABLES)}."
        )
    return iter(lines)


def _is_rows(line: str) -> bool:
    """Whether the first line of a file begins JSON, or names columns of a table."""
    text = line.strip()
    if text in ("[", "{", "[{") or JSON_BEGINS.match(text):
        return True
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        header = NAMES.fullmatch(text) is not None
        return header and any(name.casefold() in (*ASKED, *TALKS) for name in re.findall(r"\w+", text))
    return isinstance(value, dict) or (isinstance(value, list) and isinstance(next(iter(value), None), dict | str))


def read_text(path: Path) -> str:
    """A file's text: UTF-8, or as its byte-order mark says. Raises PromptFileError."""
    data = _bytes(path)
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data:
        raise PromptFileError(
            f"{path} is a binary file, or UTF-16 without its mark, not UTF-8 text. Save it as UTF-8, one prompt a line."
        )
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise PromptFileError(f"{path}, line {line} is not {encoding.upper()[:6]}. Save the file as UTF-8.") from error


def _bytes(path: Path) -> bytes:
    if not path.exists():
        raise PromptFileError(
            f"{path} does not exist. Pass a text file with one prompt a line, or one of {', '.join(TABLES)}."
        )
    if path.is_dir():
        raise PromptFileError(
            f"{path} is a folder. Pass a text file with one prompt a line, or one of {', '.join(TABLES)}."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PromptFileError(
            f"{path} cannot be read: {error.strerror}. Check its permissions, or pass a copy."
        ) from error
    for begin, what in OTHERWISE:
        if begin.match(data[:1000].lstrip()):
            raise PromptFileError(f"{path} {what}.")
    return data


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(io.StringIO(text, newline=None), 1) if line.strip())


def _row(number: int, where: str, values: Any) -> Row:
    if not isinstance(values, dict):
        raise PromptFileError(f"{where} is not a JSON object. Write rows such as {EXAMPLE}.")
    named: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).strip().casefold()
        if name and name in named:
            raise PromptFileError(f"{where} has two columns '{name}'. Rename or remove one.")
        named[name] = value
    return Row(number, where, {name: value for name, value in named.items() if value is not None})


def _parsed(where: str, text: str) -> Any:
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():  # JSON can hold half a character
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise PromptFileError(
            f"{where} holds half of a surrogate pair, which is no character: a text was cut in the middle of one. Remove it, or the row."
        ) from error
    except (ValueError, RecursionError) as error:
        raise PromptFileError(f"{where} is not JSON: {error}. Write one JSON object a line.") from error
    return value


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in _numbered(text):
        where = f"{path}, line {number}"
        yield _row(number, where, _parsed(where, line))


def _json_rows(path: Path, text: str) -> list[Row]:
    """A list of rows or of texts; JSON lines with this ending are read as what they are."""
    if not text.lstrip().startswith("["):
        try:
            return list(_json_lines(path, text))
        except PromptFileError:
            _parsed(str(path), text)  # what is no JSON at all is said
            raise PromptFileError(
                f"{path} is one JSON object, and rows are needed. Write a list of rows such as [{EXAMPLE}], or one object a line."
            ) from None
    rows = []
    for number, item in enumerate(_parsed_list(path, text), 1):
        values = {"prompt": item} if isinstance(item, str) else item
        rows.append(_row(number, f"{path}, row {number}", values))
    return rows


def _parsed_list(path: Path, text: str) -> list[Any]:
    """The items of a JSON list. Half a character is named by the row that holds it."""
    try:
        values: list[Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PromptFileError(f"{path} is not JSON: {error}. Write a list of rows such as [{EXAMPLE}].") from error
    if "\\ud" in text.lower():
        for number, item in enumerate(values, 1):
            _parsed(f"{path}, row {number}", json.dumps(item))
    return values


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a long cell is no reason to stop
    stated = re.match(rf"sep=([{COMMAS}])\r?\n", text)  # as one spreadsheet program writes it
    if stated is not None:
        text = "\n" + text[stated.end() :]
    separator = stated[1] if stated is not None else "\t" if path.suffix.lower() == ".tsv" else _comma(text)
    columns: list[str] | None = None
    reader: Any = None
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"{path}, line {reader.line_num}"
            if columns is None:
                columns = [cell.strip().casefold() for cell in cells]
                twice = next((name for name in columns if name and columns.count(name) > 1), None)
                if twice is not None:
                    raise PromptFileError(f"{path} has two columns '{twice}'. Rename or remove one.")
                continue
            if len(cells) > len(columns):
                raise PromptFileError(
                    f"{where} has {len(cells)} cells for {len(columns)} columns. Put quotes around texts that hold a {separator!r}."
                )
            yield _row(reader.line_num, where, dict(zip(columns, cells, strict=False)))
    except csv.Error as error:
        line = 1 if reader is None else reader.line_num
        raise PromptFileError(
            f"{path}, line {line} is no CSV: {error}. Close its quotes, and write a quote within a text twice."
        ) from error


def _comma(text: str) -> str:
    """What stands between the names of the columns, outside quotes."""
    header = re.sub(r'"[^"]*"', "", next((line for _, line in _numbered(text)), ""))
    return max(COMMAS, key=header.count)


def _parquet_rows(path: Path) -> Iterable[Row]:
    require("train", f"Reading {path}, a Parquet file,")
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(io.BytesIO(_bytes(path)))
        # A point in time is no prompt, and one that Python cannot hold is no reason to stop.
        rows = table.select([f.name for f in table.schema if not pyarrow.types.is_temporal(f.type)]).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, LookupError, ArithmeticError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PromptFileError(f"{path} is not a readable Parquet file ({reason}). Write it again.") from error
    return [_row(number, f"{path}, row {number}", row) for number, row in enumerate(rows, 1)]
