"""`burnish profile` from a new profile to a forgotten one."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnish.artifacts.direction import Enhancement
from burnish.cli.profile import app
from burnish.errors import InputError
from burnish.options import EvaluateOptions
from conftest import Folders

Call = Callable[..., tuple[Any, str]]
NAMES = ["education", "formal-casual"]
WORDS = "WE SANG OF THE SEA AND OF SHIPS, OH HOW WE SANG, " * 5


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder of the test's own, and few names and prompts."""
    monkeypatch.setenv("BURNISH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("burnish.catalogue.names_in", lambda language: list(NAMES))
    monkeypatch.setattr("burnish.catalogue.INSTRUCTIONS", 8)
    monkeypatch.setattr("burnish.personal.features.EVERYDAY", EvaluateOptions(prompts=10, tokens=8))
    monkeypatch.setattr("burnish.personal.enhancing.MEASURED", EvaluateOptions(prompts=6, tokens=8))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """call(*arguments) -> (stdout as text or as JSON with --json, stderr); errors are raised."""

    def calling(*arguments: object) -> tuple[Any, str]:
        capsys.readouterr()
        app([str(a) for a in arguments], exit_on_error=False, print_error=True, result_action="return_value")
        out, err = capsys.readouterr()
        return json.loads(out) if "--json" in arguments else out, err

    return calling


def answering(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_sliders_are_set_moved_taken_back_and_undone(call: Call) -> None:
    out, err = call("new", "mine", "--budget", 0.02, "--json")
    assert (out["budget"], out["says"]) == (0.02, "nothing learned yet for sure")
    assert "Next: burnish profile learn mine" in err
    out, _ = call("learn", "mine", "--set", "education=0.5", "--set", "formal-casual=-0.3", "--json")
    assert out["sliders"] == {"education": 0.5, "formal-casual": -0.3}
    out, _ = call("learn", "mine", "--set", "education=0", "--json")
    assert out["sliders"] == {"formal-casual": -0.3}
    out, err = call("undo", "mine", "--json")
    assert out["sliders"] == {"education": 0.5, "formal-casual": -0.3}
    assert "Taken back: sliders" in err
    out, _ = call("show", "mine")
    assert "set by hand: more like education and explanation, more casual" in out
    assert "education                  +0.50  from sliders" in out
    call("new", "second")
    out, _ = call("list", "--json")
    assert [p["name"] for p in out] == ["mine", "second"]
    assert "second" in call("list")[0]


def test_a_profile_is_exported_within_its_budget_and_keeps_its_scale(
    call: Call, tiny_folder: Folders, tmp_path: Path
) -> None:
    model = tiny_folder("llama")
    call("new", "mine", "--budget", 0.001)
    with pytest.raises(InputError, match="says nothing yet"):
        call("export", "mine", model, "-o", tmp_path / "none")
    call("learn", "mine", "--set", "education=3")
    out, err = call("export", "mine", model, "-o", tmp_path / "plan", "--form", "enhancement", "--json")
    assert (out["profile"], out["budget"]) == ("mine", 0.001)
    assert f"Next: burnish chat {model} --with {tmp_path / 'plan'} --compare" in err
    enhancement = Enhancement.load(tmp_path / "plan")
    assert enhancement.edited_layers()
    assert call("show", "mine", "--json")[0]["scales"][enhancement.provenance.fingerprint]["value"] == out["scale"]
    text, _ = call("export", "mine", model, "-o", tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_config.json").exists()
    assert "within 0.001 nats per token" in text
    call("export", "mine", model, "-o", tmp_path / "model", "--form", "model")
    assert (tmp_path / "model" / "model.safetensors").exists()
    elsewhere = tiny_folder("qwen2")  # the coefficients travel, the directions are found there
    call("export", "mine", elsewhere, "-o", tmp_path / "other", "--form", "enhancement")
    assert len(call("show", "mine", "--json")[0]["scales"]) == 2
    assert Enhancement.load(tmp_path / "other").provenance.fingerprint != enhancement.provenance.fingerprint


def test_pairs_are_learned_from_and_keep_no_text(call: Call, tiny_folder: Folders, tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {i}", "chosen": f"{i} YES!!", "rejected": f"{i} no..."} for i in range(6)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    call("new", "mine")
    out, err = call("choose", "mine", tiny_folder("llama"), "--pairs", tmp_path / "pairs.jsonl", "--json")
    assert out["choices"] == 6
    assert set(out["coefficients"]) == set(NAMES)
    assert out["accuracy"]["asked"] == 6
    assert set(out["units"]["spread"]) == set(NAMES)
    assert "Next: burnish profile export mine" in err
    assert b"YES!!" not in b"".join(f.read_bytes() for f in (tmp_path / "data").iterdir())
    out, _ = call("undo", "mine", "--json")
    assert (out["choices"], out["coefficients"]) == (0, {})
    for row, message in (
        ({"prompt": "Say", "chosen": "yes"}, "row 1 has no rejected answer"),
        ({"prompt": "Say", "draft": "yes", "final": "yes "}, "row 1 has the same answer twice"),
    ):
        (tmp_path / "bad.jsonl").write_text(json.dumps(row))
        with pytest.raises(InputError, match=message):
            call("choose", "mine", "no-such-model", "--pairs", tmp_path / "bad.jsonl")


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_edits_of_drafts_are_choices_of_the_final_text(
    ending: str, call: Call, tiny_folder: Folders, tmp_path: Path
) -> None:
    told = {}
    for name, (good, bad) in {"edits": ("final", "draft"), "pairs": ("chosen", "rejected")}.items():
        rows = [{"prompt": f"Say {i}", bad: f"{i} no...", good: f"{i} YES!!"} for i in range(6)]
        file = tmp_path / f"{name}.{ending}"
        lines = [",".join(rows[0]), *(",".join(r.values()) for r in rows)] if ending == "csv" else map(json.dumps, rows)
        file.write_text("\n".join(lines))
        call("new", name)
        told[name] = call("choose", name, tiny_folder("llama"), "--pairs", file, "--json")[0]
    assert told["edits"]["choices"] == 6
    assert told["edits"]["coefficients"] == told["pairs"]["coefficients"]


def test_two_answers_are_shown_and_one_is_chosen(
    call: Call, tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("new", "mine", "--budget", 0.5)
    prompts = ("--prompt", "Sing", "--prompt", "Dance", "--prompt", "Sleep")
    answering(monkeypatch, "what?\n1\n0\n")
    out, err = call("choose", "mine", tiny_folder("llama"), *prompts, "--tokens", 8, "--json")
    assert out["choices"] == 2
    assert out["accuracy"]["asked"] == 1  # the other one is a tie
    assert err.count("Which is better?") == 4
    assert "> Sing" in err
    assert "prompts left out: 1" in err


def test_the_next_command_quotes_a_name_of_several_words(call: Call) -> None:
    assert "Next: burnish profile learn 'my own' --set" in call("new", "my own")[1]
    assert "Next: burnish profile show 'my own'" in call("list")[1]


def test_forgetting_asks_first(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    call("new", "mine")
    answering(monkeypatch, "n\n")
    assert "Nothing forgotten" in call("forget", "mine")[1]
    assert call("list", "--json")[0]
    answering(monkeypatch, "y\n")
    assert "Forgotten: mine" in call("forget", "mine")[0]
    assert call("list", "--json")[0] == []
    with pytest.raises(InputError, match="no profile 'mine'"):
        call("forget", "mine", "--yes")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("learn", "mine"), "Pass --set"),
        (("learn", "mine", "--set", "poetry=1"), "no direction 'poetry'"),
        (("learn", "mine", "--set", "education"), "not NAME=VALUE"),
        (("learn", "mine", "--set", "education=nan"), "between -10 and 10"),
        (("choose", "mine", "no-such-model"), "Pass either --pairs"),
        (("new", "mine"), "already is a profile"),
        (("new", "other", "--language", "fr"), "no packaged general set"),
        (("new", "other", "--budget", "0"), "no room"),
        (("undo", "mine"), "nothing to undo"),
        (("show", "other"), "no profile 'other'"),
    ],
)
def test_mistakes_are_told_before_any_model_is_opened(arguments: tuple[str, ...], message: str, call: Call) -> None:
    call("new", "mine")
    with pytest.raises(InputError, match=message):
        call(*arguments)
