"""Every long command says what it will take, and with --dry-run nothing else."""

from pathlib import Path

import pytest

from conftest import Call, Folders, Models, random_enhancement

COMMANDS = {
    "find": "--domain education -o out",
    "enhance": "--domain education -o out",
    "enhance --method published": "--domain education -o out",
    "evaluate": "--with {plan} --domain education --compare",
    "explain": "--with {plan} --domain education",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_dry_run_estimates_time_and_memory_and_loads_nothing(
    command: str, tiny_folder: Folders, tiny_model: Models, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = random_enhancement(tiny_model("llama"), 0.5).save(tmp_path / "plan.safetensors")
    monkeypatch.setattr("burnish.model.model.load_model", lambda *_: pytest.fail("the model was loaded"))
    monkeypatch.chdir(tmp_path)
    name, *flags = command.split()
    arguments = COMMANDS[command].format(plan=plan).split()
    code, planned, err = call(name, tiny_folder("llama"), *flags, *arguments, "--dry-run", "--json")
    assert code == 0, err
    assert planned["estimate"]["seconds"] > 0 and planned["estimate"]["tokens"] > 100
    assert planned["estimate"]["bytes"] > sum(f.stat().st_size for f in tiny_folder("llama").glob("*.safetensors"))
    assert "GB of memory" in call(name, tiny_folder("llama"), *flags, *arguments, "--dry-run")[1]
    assert not (tmp_path / "out").exists()


def test_a_server_says_it_without_listening(tiny_folder: Folders, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burnish.server.serving.listen", lambda *_: pytest.fail("it listened"))
    code, out, err = call("serve", tiny_folder("llama"), "--dry-run")
    assert code == 0, err
    assert "estimate: about" in out
