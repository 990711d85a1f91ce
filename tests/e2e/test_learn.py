"""`burnish enhance` as it is without further choices: directions learnt from an expert's prompt."""

import json
from pathlib import Path
from typing import Any

import pytest

from burnish.cli.enhance import chosen_method
from burnish.cli.inputs import PromptOptions
from burnish.cli.learn import TeacherOptions, read_expert, read_subjects
from burnish.errors import InputError
from burnish.learning.teacher import Examples, Expert
from burnish.options import FindOptions, GainOptions
from burnish.prompts.domains.own import EXPERT
from conftest import Call, Folders

SECRET = "You are Xylophone the pirate. Say arrr."


def test_an_experts_prompt_becomes_an_output_with_numbers_and_a_page(
    tiny_folder: Folders, call: Call, tmp_path: Path
) -> None:
    model, out = tiny_folder("llama"), tmp_path / "out"
    arguments = ("enhance", model, "--domain", "education", "--expert", SECRET, "--steps", 4, "--budget", 0.5)
    code, result, err = call(*arguments, "-o", out, "--json")
    assert "4 learnt directions a layer within 0.5 nats per token" in err
    assert code == (0 if out.exists() else 4), err
    if code == 4:
        assert "better left alone" in err
        return
    home = out / "burnish"
    numbers = json.loads((home / "learned.json").read_text())
    assert numbers["gains"] == result["learned"]["gains"]
    assert numbers["damage"]["kl"]["mean"] == result["check"]["kl_mean"]
    page = (home / "page.html").read_text()
    assert "<script" not in page and "Effect and cost" in page
    texts = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    assert not any(b"Xylophone" in text for text in texts)
    code, _, err = call("run", out, "-o", tmp_path / "again")
    assert (code, "only the hash" in err) == (2, True)
    assert call("verify", model, out)[0] == 0
    assert call("chat", model, "--with", out, "--strength", 0.5, "--prompt", "Hello", "--tokens", 4)[0] == 0


def test_a_prompt_is_text_or_what_a_file_holds(tmp_path: Path) -> None:
    file = tmp_path / "expert.txt"
    file.write_text(f"  {SECRET}\n", encoding="utf-8")
    assert read_expert(None) is None
    assert read_expert(SECRET) == SECRET
    assert read_expert(str(file)) == SECRET
    for text in ("You are brief. " * 30, "w/o jargon, answer", "x" * 280):  # texts, not paths
        assert read_expert(text) == text.strip()
    for text, why in ((str(tmp_path / "none.txt"), "does not exist"), ("  ", "is empty")):
        with pytest.raises(InputError, match=why):
            read_expert(text)
    file.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="UTF-8"):
        read_expert(str(file))


@pytest.mark.parametrize(
    ("gains", "finding", "expected"),
    [({}, {}, "learned"), ({"enhancement_factor": 0.5}, {}, "published"), ({}, {"scope": "per-layer"}, "published")],
)
def test_what_is_given_decides_the_method(gains: dict[str, Any], finding: dict[str, Any], expected: str) -> None:
    assert chosen_method(None, GainOptions(**gains), FindOptions(**finding)) == expected


def test_prompts_alone_are_taught_by_a_general_prompt_and_preference_rows_by_their_better_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, preferred = tmp_path / "asked.txt", tmp_path / "preferred.jsonl"
    asked.write_text("".join(f"How do {n} birds fly?\n" for n in range(24)), encoding="utf-8")
    rows = [{"prompt": f"Name {n}.", "chosen": f"It is {n}.", "rejected": "No."} for n in range(20)]
    preferred.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    (subject,) = read_subjects(PromptOptions(enhance=asked), TeacherOptions(), 0)
    assert subject.teacher == Expert(EXPERT)
    assert "One of your own would do more" in " ".join(capsys.readouterr().err.split())
    (subject,) = read_subjects(PromptOptions(enhance=asked), TeacherOptions(references=preferred), 0)
    assert isinstance(subject.teacher, Examples)
    assert {(p.answer or "").split()[0] for p in subject.teacher.rows.prompts} == {"It"}
    assert not capsys.readouterr().err
