"""What a stranger asks of Burnish itself: its version, the machine, completion."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import burnish
from burnish.model.diagnosis import shortened

Call = Callable[..., tuple[int, Any, str]]


def test_the_version_is_one_line_and_with_json_the_libraries_too(call: Call) -> None:
    assert call("--version")[:2] == (0, burnish.__version__ + "\n")
    facts = call("--version", "--json")[1]
    assert facts["burnish"] == burnish.__version__
    assert facts["torch"] and facts["transformers"] and "vllm" in facts


def test_doctor_says_what_a_report_needs_and_no_secret(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "someone"
    (home / "cache" / "models").mkdir(parents=True)
    (home / "cache" / "models" / "weights").write_bytes(bytes(1234))
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setenv("BURNISH_CACHE", str(home / "cache"))
    for name in ("HF_TOKEN", "BURNISH_JUDGE_KEY", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, "hf_secret")
    code, facts, _ = call("doctor", "--json")
    assert code == 0
    assert facts["caches"]["burnish"] == {"path": str(Path("~/cache")), "bytes": 1234}
    assert facts["settings"]["BURNISH_CACHE"] == str(Path("~/cache"))
    assert facts["device"]["chosen"] and "float32" in facts["device"]["fast"]
    assert facts["free_disk"]["cache"] > 0 and facts["memory"]["total"] > 0
    text = call("doctor")[1]
    assert "versions: burnish" in text and "caches: burnish path ~" in text
    for told in (text, str(facts)):
        assert "hf_secret" not in told and "someone" not in told


def test_a_path_outside_the_home_folder_is_not_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/a"))
    assert [shortened(path) for path in ("/home/a/x", "/data/home/a", "/home/ab/x")] == [
        "~/x",
        "/data/home/a",
        "/home/ab/x",
    ]


def test_completion_is_installed_by_one_command(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    code, out, _ = call("--install-completion", "--shell", "bash")
    script = Path(out.removeprefix("Written: ").strip())
    assert code == 0 and script.is_relative_to(tmp_path)
    assert "--enhancement-factor" in script.read_text(encoding="utf-8")


def test_a_shell_that_cannot_be_told_is_asked_for(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from cyclopts.completion.detect import ShellDetectionError

    def lost(*_: object) -> None:
        raise ShellDetectionError

    monkeypatch.setattr("cyclopts.completion.install.detect_shell", lost, raising=False)
    monkeypatch.setattr("cyclopts.core.detect_shell", lost, raising=False)
    monkeypatch.setattr("cyclopts.completion.detect.detect_shell", lost)
    code, _, err = call("--install-completion")
    assert code == 2 and "--shell bash" in err
