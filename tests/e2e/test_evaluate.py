"""`burnish evaluate` on the command line."""

import json
from pathlib import Path

import pytest

from burnish.errors import JudgeError
from conftest import Call, Folders, Models, random_adapter, random_enhancement

SMALL = ("--prompts 4 --tokens 6 --answer-tokens 8 --samples 3 --sample-tokens 8 --random-directions 4",)


@pytest.fixture
def plan(tiny_model: Models, tmp_path: Path) -> Path:
    return random_enhancement(tiny_model("llama"), 0.5).save(tmp_path / "plan.safetensors")


def test_an_enhancement_is_evaluated_and_kept(tiny_folder: Folders, plan: Path, call: Call, tmp_path: Path) -> None:
    arguments = ("evaluate", tiny_folder("llama"), "--with", plan, "--domain education --dtype float32", *SMALL)
    code, result, err = call(*arguments, "-o", tmp_path / "out", "--json")
    assert code == 0, err
    assert [e["kind"] for e in result["evaluation"]["effects"]] == ["references", "made"]
    assert result["evaluation"]["damage"]["harmful"] == 22
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["evaluation.json", "evaluation.md", "samples.md"]
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["evaluation"]["seed"] == 0
    assert call(*arguments, "-o", tmp_path / "out")[0] == 5


def test_own_pairs_are_enough(tiny_folder: Folders, plan: Path, call: Call, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Say {w}", "chosen": f"Yes, {w}.", "rejected": f"No, {w}."}
        for w in ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = ("--with", plan, "--pairs", tmp_path / "pairs.jsonl", "--dtype float32", *SMALL)
    code, out, err = call("evaluate", tiny_folder("llama"), *given)
    assert code == 0, err
    assert "own pairs" in out
    assert "Verdict:" in out


@pytest.mark.full
def test_a_foreign_adapter_is_a_row_of_the_comparison(
    tiny_folder: Folders, tiny_model: Models, call: Call, tmp_path: Path
) -> None:
    folders = [tmp_path / "one", tmp_path / "run" / "last", tmp_path / "other" / "last"]
    for seed, folder in enumerate(folders):
        random_adapter(tiny_model("llama", own=True), folder, seed=seed, target_modules=["q_proj", "down_proj"])
    given = [argument for folder in folders for argument in ("--adapter", folder)]
    where = (tiny_folder("llama"), "--dtype", "float32", "--domain", "education", "--compare", *SMALL)
    code, out, err = call("evaluate", *where, *given, "-o", tmp_path / "out")
    assert code == 0, err
    compared = json.loads((tmp_path / "out" / "evaluation.json").read_text())["comparison"]
    rows = compared["rows"][:3]
    # Folders of the same name are told apart by their paths.
    assert [r["method"] for r in rows] == [f"adapter {n}, scaled" for n in ("one", folders[1], folders[2])]
    assert all(r["method"] in out for r in rows)
    assert all(0 < r["scale"] < 1 and r["kl"]["mean"] > 0 for r in rows)


def test_an_adapter_that_cannot_be_used_is_refused_before_anything_is_measured(
    tiny_folder: Folders, tiny_model: Models, plan: Path, call: Call, tmp_path: Path
) -> None:
    where = ("evaluate", tiny_folder("llama"), "--with", plan, "--domain", "education", "--compare", *SMALL)
    code, _, err = call(*where, "--adapter", tmp_path)
    assert code == 2
    assert "adapter_config.json" in err
    random_adapter(tiny_model("kanana", own=True), tmp_path / "other", target_modules=["q_proj"])
    code, _, err = call(*where, "--adapter", tmp_path / "other", "-o", tmp_path / "out")
    assert code == 3
    assert "made for another model" in err
    assert not (tmp_path / "out").exists()


def test_an_unreachable_judge_loses_nothing_that_was_measured(
    tiny_folder: Folders, plan: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import burnish.evaluation.judge as judging

    def unreachable(*_: object, **__: object) -> None:
        raise JudgeError("The judge cannot be reached. Start it.")

    monkeypatch.setattr(judging, "mark_answers", unreachable)
    judge = ("--judge-url", "http://127.0.0.1:9/v1", "--judge-model", "m")
    arguments = ("evaluate", tiny_folder("llama"), "--with", plan, "--domain education --dtype float32", *SMALL)
    code, out, err = call(*arguments, *judge, "-o", tmp_path / "out")
    assert code == 8
    assert "cannot be reached" in err
    assert "Verdict:" in out
    assert (tmp_path / "out" / "evaluation.json").exists()
