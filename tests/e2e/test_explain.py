"""`burnish explain` as a stranger meets it."""

import re
from pathlib import Path

import pytest

from burnish.cli.app import run
from burnish.prompts.axes import axis_names
from burnish.prompts.domains import domain_names
from conftest import Call, Folders

FEW = "--answers-scored 2 --answer-tokens 8 --doses 4 --skip-likenesses"
SMALL = ("--answers 2 --tokens 6", FEW)
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "{{ 7 * 7 }} {% raw %}",
    "bell \x07 and escape \x1b[31m",
    "\N{RIGHT-TO-LEFT OVERRIDE}txet sdrawkcab",
    "\N{HEBREW LETTER SHIN}\N{HEBREW LETTER LAMED} and \N{PARTY POPPER}",
    "long " * 20_000,
    "</textarea></style><h1>taken over</h1>",
]


@pytest.fixture(scope="module")
def plan(tiny_folder: Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plan") / "plan.safetensors"
    line = f"enhance {tiny_folder('llama')} --domain education -o {out} --form enhancement --enhancement-factor 0.5"
    assert run([*line.split(), "--check-prompts", "0", "--force"]) == 0
    return out


def test_a_page_and_its_facts_are_written_and_an_existing_page_is_kept(
    tiny_folder: Folders, plan: Path, call: Call, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    code, facts, err = call("explain", tiny_folder("llama"), "--with", plan, "-o", page, *SMALL, "--json")
    assert code == 0, err
    text = page.read_text()
    assert text.lower().startswith("<!doctype html>")
    assert len(text) < 3_000_000
    assert facts["directions"][0]["name"] == "education"
    assert len(facts["answers"]) == 2
    assert facts["attribution"]["answers"] == 2
    code, _, err = call("explain", tiny_folder("llama"), "--with", plan, "-o", page, *SMALL)
    assert code == 5 and "--overwrite" in err
    assert page.read_text() == text


def test_prompts_that_are_markup_stay_text(tiny_folder: Folders, call: Call, tmp_path: Path) -> None:
    model, page, plan = tiny_folder("llama"), tmp_path / "page.html", tmp_path / "plan.safetensors"
    short = tmp_path / "short.txt"
    short.write_text("\n".join(f"{n} {line[:200]}" for n in range(12) for line in HOSTILE) + "\n", encoding="utf-8")
    result = call("find", model, "--enhance", short, "-o", plan, "--force")
    assert result[0] == 0, result[2]
    code, _, err = call(
        "explain", model, "--with", plan, "--enhance", short, "-o", page, "--answers 32 --tokens 2", FEW
    )
    assert code == 0, err
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text
    assert "<h1>taken over" not in text
    assert "\x1b" not in text and "\x07" not in text and "\N{RIGHT-TO-LEFT OVERRIDE}" not in text
    assert "7 * 7" in text
    assert len(text) < 3_000_000


def test_numbers_that_are_none_are_refused(tiny_folder: Folders, plan: Path, call: Call, tmp_path: Path) -> None:
    numbers, page = tmp_path / "numbers.json", tmp_path / "page.html"
    for text, words in (
        ('{"something": "else"}', "holds no evaluation"),
        ("{", "cannot be read as JSON"),
        ('{"evaluation": {"effects": []}}', "another version"),
    ):
        numbers.write_text(text)
        code, _, err = call("explain", tiny_folder("llama"), "--with", plan, "-o", page, "--numbers", numbers, *SMALL)
        assert code == 2 and words in err


def test_a_folders_own_check_and_realised_gains_are_on_the_page_unless_taken_at_another_strength(
    tiny_folder: Folders, call: Call, tmp_path: Path
) -> None:
    model, out, page = tiny_folder("llama"), tmp_path / "model", tmp_path / "page.html"
    assert call("enhance", model, "--domain education --method published -o", out, "--check-prompts 2 --force")[0] == 0
    _, facts, _ = call("explain", model, "--with", out, "-o", page, *SMALL, "--json")
    assert facts["check"]["prompts"] == 2
    assert all(g["realised"] == pytest.approx(g["asked"], rel=0.01) for g in facts["gains"])
    _, facts, _ = call(
        "explain", model, "--with", out, "--enhancement-factor 0.5 -o", page, "--overwrite", *SMALL, "--json"
    )
    assert facts["check"] is None
    assert all(g["realised"] is None for g in facts["gains"])


@pytest.mark.usefixtures("no_weights")
def test_another_models_enhancement_is_refused_before_weights_are_loaded(
    tiny_folder: Folders, plan: Path, call: Call, tmp_path: Path
) -> None:
    code, _, err = call("explain", tiny_folder("gpt2"), "--with", plan, "-o", tmp_path / "page.html", *SMALL)
    assert (code == 3 and "Find a direction on this model" in err) or "find a direction on this one" in err


def test_an_audit_says_what_was_done_to_a_model(tiny_folder: Folders, plan: Path, call: Call, tmp_path: Path) -> None:
    base, out = tiny_folder("llama"), tmp_path / "out"
    assert call("apply", base, plan, "-o", out)[0] == 0
    code, text, err = call("audit", base, out)
    assert code == 0
    assert text.startswith("A directional edit: 1 direction in")
    assert "like own record (from the folder itself): |cosine| 1.0000" in text
    assert "--named" in err
    code, stored, _ = call("audit", base, out, "--with", plan, "--json")
    assert stored["kind"] == "directional"
    assert {name["name"] for name in stored["matches"]["names"]} == {"own record", plan.stem}


@pytest.mark.parametrize("form", ["model", pytest.param("adapter", marks=pytest.mark.full)])
def test_an_output_folder_takes_its_page_and_its_card_the_figures(
    form: str, tiny_folder: Folders, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_of_each = (domain_names()[0], axis_names()[0])  # all of them take as long as ten findings
    monkeypatch.setattr("burnish.explaining.direction_facts.names_in", lambda _: one_of_each)
    base, out = tiny_folder("llama"), tmp_path / "out"
    code, _, err = call(
        "enhance",
        base,
        "--domain education -o",
        out,
        "--form",
        form,
        "--enhancement-factor 0.5 --instructions 12 --check-prompts 0 --force --page",
    )
    assert code == 0, err
    card = (out / "README.md").read_text()
    pictures = re.findall(r"!\[[^\]]+\]\((burnish/[a-z]+(?:-\d)?\.png)\)", card)
    assert {"burnish/separation-1.png", "burnish/gains.png"} <= set(pictures)
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert card.index("## In pictures") < card.index("## Undo")
    assert (out / "burnish" / "page.html").read_text().lower().startswith("<!doctype html>")
    if form == "model":
        assert call("verify", base, out)[0] == 0
    code, _, err = call("explain", base, "--with", out, "--publish", *SMALL)
    assert code == 0, err
    assert (out / "README.md").read_text().count("## In pictures") == 1
