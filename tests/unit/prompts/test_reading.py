"""Prompt files: every format, and an error that names file and line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.errors import PromptFileError
from burnish.prompts import Prompt, PromptSet, read_prompts


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("text", ["a\nb\n", "a\r\nb\r\n", "\ufeffa\n\n  b  \n\n", "a\nb"])
def test_line_ends_marks_and_blank_lines_do_not_matter(tmp_path: Path, text: str) -> None:
    assert read_prompts(write(tmp_path, "p.txt", text)).texts == ["a", "b"]


def test_unusual_separators_stay_inside_a_prompt(tmp_path: Path) -> None:
    assert read_prompts(write(tmp_path, "p.txt", "one\u2028still one\x0cand still\ntwo\n")).texts == [
        "one\u2028still one\x0cand still",
        "two",
    ]


def test_every_format_reads_the_same_prompts(tmp_path: Path) -> None:
    lines = write(tmp_path, "p.txt", "Why?\nTell me.\n")
    rows = write(tmp_path, "p.jsonl", '{"prompt": "Why?"}\n\n{"messages": [{"role": "user", "content": "Tell me."}]}\n')
    table = write(tmp_path, "p.csv", "id,prompt\n1,Why?\n2,Tell me.\n")
    assert read_prompts(lines).hash == read_prompts(rows).hash == read_prompts(table).hash


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.jsonl", '{"prompt": "Why?", "answer": "Because."}'),
        ("p.jsonl", '{"prompt": "Why?", "chosen": "Because.", "rejected": "No idea."}'),
        ("p.jsonl", '{"prompt": "Why?", "draft": "No idea.", "final": "Because.", "answer": null}'),
        ("p.csv", "draft,final,prompt\nNo idea.,Because.,Why?\n"),
        (
            "p.jsonl",
            '{"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}',
        ),
        ("p.csv", "prompt,answer\nWhy?,Because.\n"),
    ],
)
def test_rows_may_carry_answers(tmp_path: Path, name: str, text: str) -> None:
    (row,) = read_prompts(write(tmp_path, name, text), answers=True).prompts
    assert (row.text, row.answer) == ("Why?", "Because.")
    assert row.rejected == ("No idea." if "No idea." in text else None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "", r"p\.txt holds no prompts"),
        ("p.txt", "\n \n", r"p\.txt holds no prompts"),
        ("p.txt", b"GGUF\x00\x01", "binary file"),
        ("p.txt", b"fine\nbad \xff\n", "line 2 is not UTF-8"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": \n', "line 2 is not JSON"),
        ("p.jsonl", '["a"]', "line 1 is not a JSON object"),
        ("p.jsonl", '{"text": "a"}', r"line 1 has no 'prompt' text \(keys: text\)"),
        ("p.jsonl", '{"prompt": "a", "answer": 3}', "line 1: the answer is not a text"),
        ("p.jsonl", '{"messages": []}', "line 1: 'messages' must hold a user turn last"),
        ("p.jsonl", '{"messages": [{"role": "user"}]}', "line 1: a message needs"),
        ("p.csv", "text\na\n", r"no 'prompt' column \(columns: text\)"),
        ("p.csv", "prompt,answer\n,b\n", "line 2 has an empty 'prompt'"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(PromptFileError, match=message):
        read_prompts(write(tmp_path, name, content))


def test_missing_files_folders_and_missing_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptFileError, match="does not exist"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(PromptFileError, match="is a folder"):
        read_prompts(tmp_path)
    with pytest.raises(PromptFileError, match="row 2 has no answer"):
        read_prompts(write(tmp_path, "p.jsonl", '{"prompt": "a", "answer": "b"}\n{"prompt": "c"}'), answers=True)


@given(st.integers(1, 60), st.integers(1, 80), st.integers(0, 5))
def test_a_sample_is_seeded_in_file_order_and_the_rest_is_held_out(total: int, count: int, seed: int) -> None:
    prompts = PromptSet("p", tuple(Prompt.of(str(i)) for i in range(total)))
    taken, rest = prompts.split(count, seed)
    assert taken.hash == prompts.split(count, seed)[0].hash
    assert len(taken) == min(count, total)
    assert sorted(taken.texts + rest.texts, key=int) == prompts.texts
    assert taken.texts == sorted(taken.texts, key=int)
