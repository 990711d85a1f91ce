"""Prompt files: every format, and an error that names file and line."""

import json
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from burnish.errors import PromptFileError
from burnish.hybrid.rows import read_rows
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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.jsonl", '{"prompt": "Why?", "chosen": "Because.", "rejected": "No idea."}'),
        ("p.jsonl", '{"prompt": "Why?", "draft": "No idea.", "final": "Because.", "answer": null}'),
        ("p.csv", "draft,final,prompt\nNo idea.,Because.,Why?\n"),
    ],
)
def test_rows_may_carry_a_better_and_a_worse_answer(tmp_path: Path, name: str, text: str) -> None:
    (row,) = read_prompts(write(tmp_path, name, text), answers=True).prompts
    assert (row.text, row.answer) == ("Why?", "Because.")
    assert row.rejected == "No idea."


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "", r"p\.txt holds no prompts"),
        ("p.txt", "\n \n", r"p\.txt holds no prompts"),
        ("p.txt", b"GGUF\x00\x01", "binary file"),
        ("p.txt", b"fine\nbad \xff\n", "line 2 is not UTF-8"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": \n', "line 2 is not JSON"),
        ("p.jsonl", '["a"]', "line 1 is not a JSON object"),
        ("p.jsonl", '{"words": "a"}', r"line 1 has no 'prompt' \(columns: words\)"),
        ("p.jsonl", '{"prompt": "a", "answer": 3}', "line 1: 'answer' is neither a text"),
        ("p.jsonl", '{"messages": []}', "line 1: 'messages' is neither"),
        (
            "p.jsonl",
            '{"messages": [{"role": "assistant", "content": "a"}]}',
            "line 1: 'messages' must hold a user turn last",
        ),
        ("p.jsonl", '{"messages": [{"role": "user"}]}', "line 1: a message in 'messages' needs"),
        ("p.csv", "words\na\n", r"line 2 has no 'prompt' \(columns: words\)"),
        ("p.csv", "prompt,answer\n,b\n", "line 2: 'prompt' is empty"),
        ("p.csv", "prompt\n", "holds no prompts"),
        ("p.csv", 'prompt\n"a\nb\n', "line 3 is no CSV.*Close its quotes"),
        ("p.csv", "prompt,id\nfirst, then second,1\n", "line 2 has 3 cells for 2 columns"),
        ("p.csv", "prompt,prompt\na,b\n", "two columns 'prompt'"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "cut \\ud83d"}', "line 2 holds half of a surrogate pair"),
        ("p.json", '[{"prompt": "a"}, {"prompt": "cut \\ud83d"}]', "row 2 holds half of a surrogate pair"),
        ("p.json", '{\n"prompt": "a"\n}', "is one JSON object"),
        ("p.json", "words", "is not JSON"),
        ("p.json", "[1]", "row 1 is not a JSON object"),
        ("p.jsonl", '{"a": ' + "[" * 100_000, "line 1 is not JSON"),
        (
            "p.jsonl",
            '{"prompt": "a", "chosen": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]}',
            "ask different",
        ),
        (
            "p.jsonl",
            '{"prompt": "a", "chosen": [{"role": "user", "content": "b"}]}',
            "must end with a message of the assistant",
        ),
        ("p.yaml", "- a\n", r"ends in '\.yaml'.*\.jsonl"),
        ("p.md", "a\n", r"ends in '\.md'"),
        ("p.parquet", b"PAR1 no", "not a readable Parquet"),
        ("p.txt", "a\n" * 40_000 + "b\0c", "binary file"),
        ("p.txt", '{"prompt": "a"}\n{"prompt": "b"}\n', "holds rows such as"),
        ("p", '[\n{"prompt": "a"}\n]\n', "holds rows such as"),
        ("p.txt", '["a", "b"]', "holds rows such as"),
        ("p.txt", "id,prompt\n1,a\n", "holds rows such as 'id,prompt'"),
        ("p.txt", '"Prompt";"answer"\na;b\n', "holds rows such as"),
        ("p.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        ("p.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        ("p.jsonl", "\n<!DOCTYPE html>\n<p>404", "a page of the web"),
        ("p.txt", "{\\rtf1 Hello}", "a document with formats"),
        ("p.jsonl", '{"prompt": "a", "Prompt": "b"}', "two columns 'prompt'"),
        ("p.jsonl", '{"messages": [{"role": "user", "content": " "}]}', "the user's turn in 'messages' is empty"),
        ("p.jsonl", '{"prompt": "a", "system": 3}', "'system' is no text"),
        (
            "p.jsonl",
            '{"system": "b", "messages": [{"role": "system", "content": "c"}, {"role": "user", "content": "a"}]}',
            "second system",
        ),
        ("p.jsonl", '{"instruction": "a", "history": ["b"]}', "'history' is no list of pairs"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(PromptFileError, match=message):
        read_prompts(write(tmp_path, name, content))


EXPECTED = ["Why?", "Tell me."]
TALKS = [[{"role": "user", "content": text}, {"role": "assistant", "content": "So."}] for text in EXPECTED]
LAYOUTS = {
    "prompt": [{"prompt": text, "completion": "So."} for text in EXPECTED],
    "text": [{"text": text} for text in EXPECTED],
    "question": [{"question": text, "answer": "So."} for text in EXPECTED],
    "instruction": [{"instruction": text, "input": "", "output": "So."} for text in EXPECTED],
    "messages": [{"messages": talk} for talk in TALKS],
    "parts": [{"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]} for text in EXPECTED],
    "conversations": [
        {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "So."}]} for text in EXPECTED
    ],
    "prompt of messages": [{"prompt": talk[:1], "chosen": talk[1:], "rejected": talk[1:]} for talk in TALKS],
    "preferences with the prompt inside": [{"chosen": talk, "rejected": talk} for talk in TALKS],
    "preferences as one text": [{"chosen": f"\n\nHuman: {text}\n\nAssistant: So."} for text in EXPECTED],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "json", "parquet", "lines.json"])
def test_every_layout_is_read_from_every_table(layout: str, ending: str, tmp_path: Path) -> None:
    rows, path = LAYOUTS[layout], tmp_path / f"p.{ending}"
    if ending == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif ending == "json":
        path.write_text(json.dumps(rows, indent=2))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = read_prompts(path).prompts
    assert [p.messages for p in prompts] == [(("user", text),) for text in EXPECTED]
    assert {p.answer for p in prompts} == ({None} if layout in ("text", "parts") else {"So."})


@pytest.mark.parametrize(
    ("asked", "about"), [("instruction", "input"), ("instruction", "context"), ("question", "context")]
)
def test_what_an_instruction_is_about_is_taken_along(asked: str, about: str, tmp_path: Path) -> None:
    path = write(tmp_path, "p.json", json.dumps([{asked: "Translate.", about: "Hej", "output": "Hello"}]))
    assert read_prompts(path).texts == ["Translate.\n\nHej"]


@pytest.mark.parametrize("column", ["system", "system_prompt", "System"])
def test_a_system_turn_and_earlier_turns_in_columns_of_their_own_are_read(column: str, tmp_path: Path) -> None:
    row = {column: "Be brief. ", "instruction": "And then?", "history": [["Who?", "Ann."]], "output": "So."}
    (prompt,) = read_prompts(write(tmp_path, "p.jsonl", json.dumps(row))).prompts
    assert [role for role, _ in prompt.messages] == ["system", "user", "assistant", "user"]
    assert [content for _, content in prompt.messages] == ["Be brief.", "Who?", "Ann.", "And then?"]
    assert prompt.answer == "So."


@pytest.mark.parametrize("label", ["false", "true"])
def test_an_answer_that_is_marked_as_bad_is_none_to_learn(label: str, tmp_path: Path) -> None:
    path = write(tmp_path, "p.jsonl", f'{{"prompt": "Why?", "completion": "So.", "label": {label}}}')
    (prompt,) = read_prompts(path).prompts
    assert (prompt.answer, prompt.rejected) == ((None, "So.") if label == "false" else ("So.", None))
    if label == "false":
        with pytest.raises(PromptFileError, match="marked as bad"):
            read_rows(path)


def test_an_answer_of_nothing_is_no_answer(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": " "}]
    assert read_prompts(write(tmp_path, "p.jsonl", json.dumps({"messages": talk}))).prompts[0].answer is None


@pytest.mark.parametrize(
    "line", ["[1, 2, 3] goes on how?", "{x} is what?", "Question, answer", "[1, 2]", "prompt", '"Why?"']
)
def test_lines_that_only_look_like_rows_are_prompts(line: str, tmp_path: Path) -> None:
    assert read_prompts(write(tmp_path, "p.txt", f"{line}\n")).texts == [line]


@pytest.mark.parametrize(
    "kind",
    [pyarrow.timestamp("us", tz="Mars/Olympus"), pyarrow.timestamp("us"), pyarrow.date32(), pyarrow.duration("s")],
)
def test_times_beside_the_prompts_are_no_reason_to_stop(kind: pyarrow.DataType, tmp_path: Path) -> None:
    far = 2**30 if kind == pyarrow.date32() else 2**62
    parquet.write_table(pyarrow.table({"prompt": ["Why?"], "at": pyarrow.array([far], kind)}), tmp_path / "p.parquet")
    assert read_prompts(tmp_path / "p.parquet").texts == ["Why?"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_byte_order_mark_says_the_encoding(encoding: str, tmp_path: Path) -> None:
    text = "Why?\r\nHur då?\r\n"
    data = text.encode(encoding) if encoding in ("utf-8-sig", "utf-16", "utf-32") else f"\ufeff{text}".encode(encoding)
    assert read_prompts(write(tmp_path, "p.txt", data)).texts == ["Why?", "Hur då?"]


@pytest.mark.parametrize("header", ["{0}prompt{1}source", '{0}"Prompt"{1}"source, or; none|"', "\n{0}PROMPT {1}source"])
@pytest.mark.parametrize(
    ("name", "stated", "comma"),
    [
        ("p.csv", "", ","),
        ("p.csv", "", ";"),
        ("p.csv", "", "\t"),
        ("p.csv", "", "|"),
        ("p.csv", "sep=;\r\n", ";"),
        ("p.tsv", "", "\t"),
    ],
)
def test_tables_of_text_may_hold_long_cells_and_other_commas(
    name: str, stated: str, comma: str, header: str, tmp_path: Path
) -> None:
    if stated and header.startswith("\n"):
        pytest.skip("it stands in the first line")
    table = f"{header.format(stated, comma)}\nWhy?{comma}{'page ' * 30_000}\n\nTell me.{comma}x\n"
    assert read_prompts(write(tmp_path, name, table)).texts == EXPECTED


def test_a_data_set_of_the_hub_is_read_by_its_name_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[object, ...]] = []

    def load(*name: str, split: str) -> datasets.Dataset:
        asked.append((*name, split))
        if split == "gone":
            raise ValueError("Unknown split")
        return datasets.Dataset.from_list(LAYOUTS["instruction"])

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read_prompts("hf://datasets/owner/name:train").texts == EXPECTED
    assert read_prompts(Path("hf://datasets/owner/name/main:train[:10]")).name == "main:train[:10]"
    assert asked == [("owner/name", "train"), ("owner/name", "main", "train[:10]")]
    for name, message in (
        ("owner/name", "names no split"),
        ("name:train", "names no split"),
        ("a/b:gone", "Unknown split"),
    ):
        with pytest.raises(PromptFileError, match=message):
            read_prompts(f"hf://datasets/{name}")


def test_prompts_are_counted_once_and_never_held_out_from_themselves() -> None:
    prompts = PromptSet("p", tuple(Prompt.of(text) for text in ("a", "b", "a", "c")))
    assert prompts.different == 3
    assert prompts.without(PromptSet("q", prompts.prompts[:1])).texts == ["b", "c"]


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
    taken, held_out = prompts.split(count, seed)
    assert taken.hash == prompts.split(count, seed)[0].hash
    assert len(taken) == min(count, total)
    assert sorted(taken.texts + held_out.texts, key=int) == prompts.texts
    assert taken.texts == sorted(taken.texts, key=int)


@pytest.mark.parametrize("begins", ['[{"prompt": "Why?"},', '{"prompt": "Why?"},', '["Why?",'])
def test_rows_of_json_in_a_list_of_lines_are_no_prompts(begins: str, tmp_path: Path) -> None:
    with pytest.raises(PromptFileError, match="holds rows such as"):
        read_prompts(write(tmp_path, "p.txt", f"{begins}\nHow?\n"))


@pytest.mark.parametrize("asked", ["prompt", "query", "text", "question"])
@pytest.mark.parametrize("about", ["input", "context"])
def test_what_a_prompt_is_about_is_read_with_it(asked: str, about: str, tmp_path: Path) -> None:
    path = write(tmp_path, "p.jsonl", json.dumps({asked: "Sum up.", about: "The sea is blue."}))
    assert read_prompts(path).texts == ["Sum up.\n\nThe sea is blue."]
    path = write(tmp_path, "q.jsonl", json.dumps({asked: "Sum up: The sea is blue.", about: "The sea is blue."}))
    assert read_prompts(path).texts == ["Sum up: The sea is blue."]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "Why?", "context": ["a", "b"]}, "'context' belongs to 'question' and is no text"),
        ({"prompt": '[{"role": "user", "content": "Why?"}]'}, "messages written as a text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "text": "cat.png"}]}]}, "needs the texts"),
    ],
)
def test_words_that_would_be_lost_or_read_as_others_are_refused(row: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(PromptFileError, match=words):
        read_prompts(write(tmp_path, "p.jsonl", json.dumps(row)))
