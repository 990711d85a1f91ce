"""`burnish tune` and `--enhancement-factor auto` as a stranger meets them."""

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Call, Folders

SMALL = ("--prompts", 4, "--tokens", 6, "--answer-tokens", 8, "--random-directions", 3, "--steps", 1)


def numbers(result: Any) -> dict[str, Any]:
    """The JSON document, which is printed before an abstaining exit too."""
    return result if isinstance(result, dict) else json.loads(result)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "good.jsonl"
    lines = [json.dumps({"prompt": f"What is {w}?", "answer": f"{w} is {w}. " * 3}) for w in "abcdefghijklmnopqr"]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "stories.txt"
    path.write_text("\n".join(f"Tell a story of {a}{b}" for a in "abcdef" for b in "uvwxyz") + "\n")
    return path


@pytest.mark.parametrize(
    "weighted",
    [
        ("--domain", "education"),
        pytest.param(("--domain", "education=1.0", "--domain", "creative-writing=0.5"), marks=pytest.mark.full),
    ],
)
def test_tuning_leaves_a_folder_that_apply_takes_or_says_why_not(
    weighted: tuple[str, ...], tiny_folder: Folders, call: Call, tmp_path: Path
) -> None:
    model, out = tiny_folder("llama"), tmp_path / "tuned"
    code, result, err = call("tune", model, *weighted, "-o", out, *SMALL, "--json")
    result = numbers(result)
    assert code == (4 if result["abstained"] else 0), err
    assert {p.name for p in out.iterdir()} == {"burnish", "tuning.json", "tuning.md"}
    written = json.loads((out / "tuning.json").read_text())
    assert written["gains"] == result["gains"]
    if result["abstained"]:
        assert "better left alone" in err
        assert not any(any(row) for row in written["gains"])
    else:
        assert call("apply", model, out, "-o", tmp_path / "model")[0] == 0


def test_own_prompts_with_good_answers_are_tuned(
    tiny_folder: Folders, prompts: Path, rows: Path, call: Call, tmp_path: Path
) -> None:
    model = tiny_folder("llama")
    arguments = (
        "tune",
        model,
        "--enhance",
        prompts,
        "--references",
        rows,
        "--expert 'Tell stories.'",
        *SMALL,
        "--json",
    )
    code, result, err = call(*arguments, "-o", tmp_path / "one")
    assert code in (0, 4), err
    assert [aim[1] for aim in numbers(result)["aims"]] == ["references", "made"]
    code, result, err = call("tune", model, "--enhance", prompts, *SMALL, "--json", "-o", tmp_path / "two")
    assert code in (0, 4)
    assert "flatters" in err


@pytest.mark.full
@pytest.mark.parametrize("budget", [0.01, 0.2])
def test_auto_writes_gains_or_nothing_at_all(budget: float, tiny_folder: Folders, call: Call, tmp_path: Path) -> None:
    model, out = tiny_folder("llama"), tmp_path / "out"
    arguments = ("enhance", model, "--domain education --method gains --budget", budget, "-o", out)
    code, result, err = call(*arguments, "--check-prompts", 2, "--json")
    assert "gains chosen within" in err
    assert code == (0 if out.exists() else 4), err
    if code == 0:
        assert result["tuned"]["gains"]
        assert (out / "burnish" / "tuning.md").exists()
        assert call("verify", model, out)[0] == 0


def test_a_mix_with_a_factor_gives_each_direction_its_own(tiny_folder: Folders, call: Call, tmp_path: Path) -> None:
    model, out = tiny_folder("llama"), tmp_path / "out"
    mix = "creative-writing + 0.5 education"
    code, result, err = call(
        "enhance", model, "--domain", mix, "--enhancement-factor 0.4 --force -o", out, "--check-prompts 0 --json"
    )
    assert code == 0, err
    assert len(result["directions"]) == 2
    assert [g["asked"] for g in result["gains"]] == [pytest.approx([0.4, 0.2])] * 3
    assert [g["realised"] for g in result["gains"]] == [pytest.approx([0.4, 0.2], abs=2e-3)] * 3
