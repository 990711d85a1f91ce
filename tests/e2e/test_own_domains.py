"""A speciality of one's own has a name like the packaged ones, everywhere."""

import json
from pathlib import Path

import pytest

from burnish.prompts.domains import domain_names, load_domain, packaged_names
from conftest import Call, Folders

PROMPTS = [f"Write haiku number {n} about {what}." for n in range(6) for what in ("rain", "stone", "a door", "sleep")]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    prompts, references = tmp_path / "haiku.txt", tmp_path / "references.jsonl"
    prompts.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    rows = [{"prompt": f"Haiku about {n}?", "answer": f"Line {n} of rain,\nagain."} for n in range(16)]
    references.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return prompts, references


def test_an_own_domain_is_listed_found_mixed_and_removed(
    tiny_folder: Folders, call: Call, files: tuple[Path, Path], tmp_path: Path
) -> None:
    model = tiny_folder("llama")
    code, _, err = call("domains", "add", "haiku", "--enhance", files[0], "--references", files[1], "--title", "Haiku")
    assert code == 0, err
    assert domain_names() == [*packaged_names(), "haiku"]
    domain = load_domain("haiku")
    assert sorted([*domain.enhance.texts, *domain.held_out.texts]) == sorted(PROMPTS)
    assert (len(domain.held_out), len(domain.references_tune), len(domain.references_report)) == (8, 8, 8)
    assert "\n" in (domain.references_tune.prompts[0].answer or "")
    assert "haiku" in call("domains", "list")[1]
    assert call("domains", "show", "haiku")[0] == 0
    code, _, err = call("find", model, "--domain", "haiku", "-o", tmp_path / "d.safetensors", "--force", "--json")
    assert code == 0, err
    code, _, err = call(
        "enhance",
        model,
        "--domain '0.5 haiku + 0.5 education' -o",
        tmp_path / "out",
        "--form adapter --enhancement-factor 0.5 --check-prompts 0 --force",
    )
    assert code == 0, err
    assert call("profile", "new", "mine")[0] == 0
    code, _, err = call("profile", "learn", "mine", "--set", "haiku=0.5")
    assert code == 0, err
    assert "more like haiku" in call("profile", "show", "mine")[1]
    assert call("domains", "remove", "haiku")[0] == 0
    assert domain_names() == packaged_names()
    code, _, err = call("profile", "export", "mine", model, "-o", tmp_path / "profile")
    assert code == 2
    assert "haiku" in err


def test_without_references_it_is_explained_and_evaluated_on_what_there_is(
    tiny_folder: Folders, call: Call, files: tuple[Path, Path], tmp_path: Path
) -> None:
    model, plan = tiny_folder("llama"), tmp_path / "plan.safetensors"
    assert call("domains", "add", "haiku", "--enhance", files[0])[0] == 0
    assert call("domains", "show", "haiku")[0] == 0
    code, _, err = call(
        "enhance",
        model,
        "--domain haiku -o",
        plan,
        "--form enhancement --enhancement-factor 0.5 --check-prompts 0 --force",
    )
    assert code == 0, err
    small = ("--prompts", 4, "--tokens", 4, "--answer-tokens", 8, "--samples", 2, "--sample-tokens", 4)
    code, result, err = call("evaluate", model, "--with", plan, "--domain", "haiku", *small, "--json")
    assert code == 0, err
    assert [effect["kind"] for effect in result["evaluation"]["effects"]] == ["made"]
    code, _, err = call(
        "explain",
        model,
        "--with",
        plan,
        "--answers 1 --tokens 4 --answers-scored 2 --answer-tokens 8 --doses 4 --skip-likenesses",
    )
    assert code == 0, err


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("education", (), "is a packaged name"),
        ("formal-casual", (), "is a packaged name"),
        ("3d files", (), "cannot be a domain's name"),
        ("../elsewhere", (), "cannot be a domain's name"),
        ("haiku", ("--language", "fr"), "in en and ko"),
    ],
)
def test_names_and_files_that_cannot_be_are_refused(
    name: str, more: tuple[str, ...], message: str, call: Call, files: tuple[Path, Path]
) -> None:
    code, _, err = call("domains", "add", name, "--enhance", files[0], *more)
    assert code == 2
    assert message in " ".join(err.split())
    assert domain_names() == packaged_names()


def test_too_few_prompts_an_existing_name_and_a_missing_one_are_refused(
    call: Call, files: tuple[Path, Path], tmp_path: Path
) -> None:
    few = tmp_path / "few.txt"
    few.write_text("\n".join(PROMPTS[:5]) + "\n", encoding="utf-8")
    code, _, err = call("domains", "add", "haiku", "--enhance", few)
    assert code == 2 and "16 or more" in " ".join(err.split())
    assert call("domains", "add", "haiku", "--enhance", files[0])[0] == 0
    code, _, err = call("domains", "add", "haiku", "--enhance", files[0])
    assert code == 5 and "already exists" in err
    assert call("domains", "add", "haiku", "--enhance", files[0], "--overwrite")[0] == 0
    assert call("domains", "remove", "poetry")[0] == 2
