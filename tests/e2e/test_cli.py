"""The command line as a stranger meets it: every command, its JSON, its plan, and every mistake."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from conftest import Call, Folders

PUBLISHED = ("--method", "published")
BURNISH = str(Path(sys.executable).with_name("burnish"))
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def prompts(end: str, start: int) -> str:
    letters = [LETTERS[(start + 7 * i + i // 26) % 26] for i in range(60)]
    return "\n".join("".join(letters[i : i + 3 + i % 5]) + end for i in range(40)) + "\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "enhance.txt").write_text(prompts(" ?!", 0))
    (tmp_path / "normal.txt").write_text(prompts(" ...", 3))
    return ("--enhance", str(tmp_path / "enhance.txt"), "--normal", str(tmp_path / "normal.txt"))


@pytest.fixture(params=["llama", "kanana"])
def model(request: pytest.FixtureRequest, tiny_folder: Folders) -> Path:
    return tiny_folder(request.param)


def test_enhance_writes_a_model_that_plain_transformers_loads(
    model: Path, files: tuple[str, ...], call: Call, tmp_path: Path
) -> None:
    code, result, err = call("enhance", model, *files, *PUBLISHED, "-o", tmp_path / "out", "--check-prompts 4 --json")
    assert code == 0, err
    assert result["check"]["prompts"] == 4
    assert all(g["realised"] == pytest.approx(g["asked"], abs=1e-3) for g in result["gains"])
    assert "Plan: 3 attention output projections in 3 of 3 layers" in err
    assert "Next: burnish verify" in err
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    weight = loaded.model.layers[0].self_attn.o_proj.weight
    assert torch.equal(
        weight, load_file(tmp_path / "out" / "model.safetensors")["model.layers.0.self_attn.o_proj.weight"]
    )


def test_find_apply_verify_and_chat_agree(model: Path, files: tuple[str, ...], call: Call, tmp_path: Path) -> None:
    direction, out, adapter, plan = (tmp_path / n for n in ("d.safetensors", "out", "adapter", "plan.safetensors"))
    code, result, err = call("find", model, *files, "-o", direction, "--instructions 24 --scope per-layer --json")
    assert code == 0, err
    assert result["found"]
    assert result["provenance"]["enhance_prompts"] == 24
    assert call("apply", model, direction, "--enhancement-factor", 0.5, "-o", out)[0] == 0
    assert call("apply", model, direction, "--enhancement-factor", 0.5, "-o", adapter, "--form", "adapter")[0] == 0
    assert call("apply", model, direction, "--enhancement-factor", 0.5, "-o", plan, "--form", "enhancement")[0] == 0
    code, verified, _ = call("verify", model, out, "--json")
    assert code == 0
    assert verified["clean"]
    assert [layer["gains"] for layer in verified["edited"]] == [pytest.approx([0.5], abs=1e-3)] * 3
    answers = [
        call("chat", model, "--with", source, "--prompt", "Hello", "--tokens", 6, "--json")[1][0]["enhanced"]
        for source in (plan, out, adapter)
    ]
    baked = call("chat", out, "--prompt", "Hello", "--tokens", 6, "--json")[1][0]["base"]
    assert answers == [baked] * 3
    both = call("chat", model, "--with", plan, "--compare", "--prompt", "Hello", "--tokens", 6)[1]
    assert "base" in both
    assert "enhanced" in both


@pytest.mark.parametrize("form", ["model", "adapter", "enhancement"])
def test_a_dry_run_tells_the_plan_and_writes_nothing(
    form: str, model: Path, files: tuple[str, ...], call: Call, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    code, plan, err = call(
        "enhance", model, *files, *PUBLISHED, "-o", tmp_path / "out", "--form", form, "--layers 1.. --dry-run --json"
    )
    assert code == 0, err
    assert plan["dry_run"]
    assert plan["layers"] == [1, 2]
    assert "3 of 3 layers" in plan["coverage"]
    if form == "model":
        copied = sum(file.stat().st_size for file in model.iterdir())
        assert copied < plan["bytes"] < 1.1 * copied  # and what is written beside
    assert sorted(tmp_path.iterdir()) == before
    assert call("find", model, *files, "-o", tmp_path / "d", "--dry-run")[0] == 0
    assert sorted(tmp_path.iterdir()) == before


def test_an_adapter_takes_the_bytes_that_were_planned(
    files: tuple[str, ...], tiny_folder: Folders, call: Call, tmp_path: Path
) -> None:
    for family in ("kanana", "llama-biased"):
        arguments = ("enhance", tiny_folder(family), *files, *PUBLISHED, "--form", "adapter", "-o", tmp_path / family)
        planned = call(*arguments, "--dry-run", "--json")[1]["bytes"]
        assert call(*arguments, "--check-prompts", 0)[0] == 0
        written = sum(file.stat().st_size for file in (tmp_path / family).rglob("*") if file.is_file())
        assert planned == pytest.approx(written, rel=0.2)  # of a real model's nothing but the tensors counts


def damaged(tmp_path: Path, name: str, content: bytes) -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("enhance", "normal", "code", "message"),
    [
        (None, prompts(".", 3), 2, "does not exist"),
        ("", prompts(".", 3), 2, "holds no prompts"),
        ("one line\n", prompts(".", 3), 2, "1 prompt: too few"),
        ("GGUF\0\1", prompts(".", 3), 2, "binary file"),
        (prompts("?", 0), prompts("?", 0), 2, "are the same"),
    ],
)
def test_bad_prompt_files_are_refused_before_the_model_is_loaded(
    enhance: str | None,
    normal: str,
    code: int,
    message: str,
    tiny_folder: Folders,
    call: Call,
    tmp_path: Path,
) -> None:
    if enhance is not None:
        damaged(tmp_path, "e.txt", enhance.encode())
    damaged(tmp_path, "n.txt", normal.encode())
    for command in ("enhance", "find"):
        arguments = ("--enhance", tmp_path / "e.txt", "--normal", tmp_path / "n.txt", "-o", tmp_path / "out")
        method = PUBLISHED if command == "enhance" else ()
        ended, out, err = call(command, tiny_folder("llama"), *arguments, *method)
        assert ended == code
        assert out == ""
        assert err.startswith("Error: ") or "\nError: " in err
        assert message in err
    assert not (tmp_path / "out").exists()


def test_unknown_models_and_domains_list_what_there_is(tiny_folder: Folders, call: Call, tmp_path: Path) -> None:
    code, _, err = call("find", "smollm9", "--domain", "education", "-o", tmp_path / "d")
    assert (code, "smollm2-135m" in err) == (2, True)
    code, _, err = call("find", tiny_folder("llama"), "--domain", "poetry", "-o", tmp_path / "d")
    assert (code, "creative-writing" in err) == (2, True)
    assert call("models", "path", "smollm9")[0] == 2


def test_the_wrong_model_is_refused_and_leaves_nothing(
    tiny_folder: Folders, files: tuple[str, ...], call: Call, tmp_path: Path
) -> None:
    direction = tmp_path / "d.safetensors"
    assert call("find", tiny_folder("llama"), *files, "-o", direction)[0] == 0
    for other, reason in (("llama-biased", "another checkpoint"), ("kanana", "56 wide")):
        code, _, err = call("apply", tiny_folder(other), direction, "-o", tmp_path / "out")
        assert code == 3
        assert reason in err
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.partial").exists()
        assert call("chat", tiny_folder(other), "--with", direction, "--prompt", "Hello")[0] == 3
    assert call("apply", tiny_folder("llama"), tmp_path / "none", "-o", tmp_path / "out")[0] == 2
    assert call("apply", tiny_folder("llama"), tmp_path / "enhance.txt", "-o", tmp_path / "out")[0] == 2


def test_no_direction_is_exit_four_unless_forced(tiny_folder: Folders, call: Call, tmp_path: Path) -> None:
    lines = prompts(" ?", 0).splitlines() + prompts(" ?", 5).splitlines()
    damaged(tmp_path, "e.txt", "\n".join(lines[::2]).encode())
    damaged(tmp_path, "n.txt", "\n".join(lines[1::2]).encode())
    arguments = (
        "--enhance",
        tmp_path / "e.txt",
        "--normal",
        tmp_path / "n.txt",
        "-o",
        tmp_path / "d",
        "--instructions 12",
    )
    code, _, err = call("find", tiny_folder("llama"), *arguments)
    assert code == 4
    assert "no better than shuffled labels" in err
    assert not (tmp_path / "d").exists()
    assert call("find", tiny_folder("llama"), *arguments, "--force")[0] == 0


def test_a_base_model_is_said_to_read_raw_prompts(
    tiny_folder: Folders, files: tuple[str, ...], call: Call, tmp_path: Path
) -> None:
    code, _, err = call("find", tiny_folder("llama", template=False), *files, "-o", tmp_path / "d")
    assert code == 0
    assert "no chat template" in err
    assert "fewer than --instructions 95: all are used" in err


def test_domains_are_listed_shown_exported_and_linted(call: Call, tmp_path: Path) -> None:
    code, listed, _ = call("domains", "list", "--json")
    assert code == 0
    assert [row["kind"] for row in listed] == ["domain"] * 6 + ["axis"] * 4
    assert listed[-1]["poles"] == ["warm", "neutral"]
    assert "Style axes" in call("domains", "list")[1]
    assert "courtroom" in call("domains", "show", "formal-casual")[1]
    assert len(call("domains", "show", "formal-casual", "--json")[1]["pairs"]) == 6
    assert "Expert:" in call("domains", "show", "education")[1]
    assert len(call("domains", "show", "education", "--json")[1]["enhance"]) == 95
    assert call("domains", "export", "creative-writing-ko", "-o", tmp_path / "ko")[0] == 0
    assert call("domains", "export", "creative-writing-ko", "-o", tmp_path / "ko")[0] == 5
    code, linted, _ = call("domains", "lint", tmp_path / "ko" / "enhance.txt", tmp_path / "ko" / "normal.txt", "--json")
    assert (code, linted["findings"]) == (0, [])
    assert len((tmp_path / "ko" / "references.jsonl").read_text(encoding="utf-8").splitlines()) == 32
    code, out, _ = call("domains", "lint", tmp_path / "ko" / "enhance.txt", tmp_path / "ko" / "enhance.txt")
    assert (code, "in both sets" in out) == (1, True)


def test_help_and_the_package_cost_no_torch() -> None:
    code = "import sys, burnish, burnish.cli.app as c; c.run(['--help']); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    import burnish

    for name in burnish.__all__:
        assert getattr(burnish, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = burnish.nonsense


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_without_a_traceback_and_without_an_output(
    tiny_folder: Folders, files: tuple[str, ...], tmp_path: Path
) -> None:
    command = [
        BURNISH,
        "enhance",
        str(tiny_folder("llama")),
        *files,
        *PUBLISHED,
        "-o",
        str(tmp_path / "out"),
        "--check-prompts",
        "140",
    ]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert process.stderr is not None
    while "Plan:" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "run the same command again" in err
    assert not (tmp_path / "out").exists()
