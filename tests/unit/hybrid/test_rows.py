"""Training rows: every form is read alike, and what is wrong is said with its row."""

import json
from pathlib import Path
from typing import Any

import pytest

from burnish.errors import InputError, PromptFileError
from burnish.hybrid.rows import as_rows, read_rows
from burnish.prompts import Prompt, PromptSet


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n", encoding="utf-8")
    return path


def test_the_three_formats_hold_the_same_rows(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [{"prompt": "Who, then?", "completion": 'The "keeper".'}, {"prompt": "When?", "completion": "At dusk."}]
    (tmp_path / "a.csv").write_text('prompt,completion\n"Who, then?","The ""keeper""."\nWhen?,At dusk.\n')
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    read = [
        read_rows(jsonl(tmp_path / "a.jsonl", *rows)),
        read_rows(tmp_path / "a.csv"),
        read_rows(tmp_path / "a.parquet"),
    ]
    assert read[0].prompts == read[1].prompts == read[2].prompts == as_rows(rows).prompts
    assert {r.hash for r in read} == {read[0].hash}
    assert not read[0].preference


def test_messages_and_texts_are_the_same_row_and_preference_rows_have_both_answers() -> None:
    text = {"prompt": "Who?", "completion": "Nobody."}
    turns = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Nobody."}]}
    split = {
        "prompt": [{"role": "user", "content": "Who?"}],
        "completion": [{"role": "assistant", "content": "Nobody."}],
    }
    one, *others = (as_rows([row]).prompts for row in (text, turns, split))
    assert all(other == one for other in others)
    rows = as_rows([{"prompt": "Who?", "chosen": "Nobody.", "rejected": "Dunno"}])
    assert rows.preference
    assert (rows.prompts[0].answer, rows.prompts[0].rejected) == ("Nobody.", "Dunno")


GOOD = {"prompt": "Who?", "completion": "Nobody."}
TURN = {"role": "user", "content": "Who?"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"asked": "Who?", "completion": "Nobody."}, r"line 3 has no 'prompt' \(columns: asked, completion\)"),
        ({"prompt": "Who?"}, "line 3 has no 'completion'"),
        ({"prompt": "Who?", "chosen": "A"}, "line 3 has no 'rejected'"),
        ({"prompt": "  ", "completion": "Nobody."}, "line 3: 'prompt' is empty"),
        ({"prompt": "Who?", "completion": ""}, "line 3: 'completion' is empty"),
        ({"prompt": "Who?", "completion": 7}, "line 3: 'completion' is neither a text"),
        ({"messages": [TURN]}, "line 3: 'messages' must end with the assistant's"),
        ({"messages": [TURN, {"role": "assistant"}]}, "line 3: a message in 'messages' needs"),
        ({"prompt": "Who?", "chosen": "A", "rejected": "B"}, "row 3: preference rows .* are mixed"),
        ({"prompt": "Who?", "chosen": "A", "rejected": "B", "completion": "C"}, "line 3 has both"),
        ("{nonsense", "line 3 is not JSON"),
        ("[1, 2]", "line 3 is not a JSON object"),
    ],
)
def test_a_bad_row_is_named_with_its_line(row: Any, message: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", GOOD, "", row)
    with pytest.raises(PromptFileError, match=message):
        read_rows(path)


def test_files_that_are_no_tables_and_prompts_without_answers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "rows.txt").write_text("Who?\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "latin.csv").write_bytes("prompt,completion\nÄ,B\n".encode("latin-1"))
    for name, message in [
        ("missing.jsonl", "does not exist"),
        ("empty.jsonl", "is empty"),
        ("rows.txt", "no table of training rows"),
        ("broken.parquet", "not a readable Parquet"),
        ("latin.csv", "not UTF-8"),
    ]:
        with pytest.raises(PromptFileError, match=message):
            read_rows(tmp_path / name)
    with pytest.raises(InputError, match="Row 1 of 'mine' has no answer"):
        as_rows(PromptSet("mine", (Prompt.of("Who?"),)))


def test_the_split_does_not_depend_on_the_rows_order_and_leaves_a_row_to_train_on() -> None:
    rows = [{"prompt": f"Question {i}?", "completion": f"Answer {i}."} for i in range(40)]
    training, held = as_rows(rows).split(0.25, 3)
    _, turned = as_rows(rows[::-1]).split(0.25, 3)
    assert len(held) == 10
    assert len(training) == 30
    assert set(held.prompts) == set(turned.prompts)
    assert not set(held.prompts) & set(training.prompts)
    assert set(held.prompts) != set(as_rows(rows).split(0.25, 4)[1].prompts)
    training, held = as_rows([GOOD]).split(0.9, 0)
    assert (len(training), len(held)) == (1, 0)
