"""Fetching from the hub, with the real client and a stand-in of the hub's HTTP interface."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

import burnish
from burnish.artifacts.direction import Enhancement
from burnish.artifacts.files import MARK, PLAN_FILE
from burnish.artifacts.lora import read_lora
from burnish.cli.app import run
from burnish.errors import InputError, ModelNotFoundError, OutputExistsError
from burnish.model.source import resolve
from burnish.pipeline import read_enhancement
from burnish.pushing import pull_file
from conftest import contents
from hub_example import BASE, REPO, refusal
from hub_stand_in import HubStandIn

pytestmark = pytest.mark.enable_socket  # the stand-in listens on the loopback


@pytest.mark.parametrize("form", ["model", "adapter", "enhancement"])
def test_what_was_pushed_in_any_form_is_pulled_as_the_same_enhancement(
    form: str, hub: HubStandIn, made: dict[str, Path], tmp_path: Path
) -> None:
    burnish.push(made[form], REPO)
    file = pull_file(REPO, tmp_path / "pulled.safetensors")
    assert file.read_bytes() == made["enhancement"].read_bytes()
    asked = {path.rpartition("/")[2] for path in hub.requests("GET") if "/resolve/" in path}
    assert asked <= {MARK, "enhancement.safetensors", "README.md"}  # the card is the base model's, for the licence
    with pytest.raises(OutputExistsError):
        pull_file(REPO, file)


def test_a_hub_id_stands_wherever_a_path_to_an_enhancement_does(
    hub: HubStandIn, made: dict[str, Path], tmp_path: Path
) -> None:
    burnish.push(made["enhancement"], REPO)
    weak = Enhancement.load(made["enhancement"]).scaled(0.5)
    weak.save(tmp_path / "weak.safetensors")
    burnish.push(tmp_path / "weak.safetensors", REPO, revision="weak")
    full, half = (read_enhancement(Path(name), None, "all") for name in (REPO, f"{REPO}@weak"))
    assert torch.equal(half.gains, full.gains / 2)
    out = tmp_path / "out"
    assert run(["apply", str(made["base"]), f"{REPO}@weak", "--form", "enhancement", "-o", str(out)]) == 0
    assert torch.equal(Enhancement.load(out).gains, half.gains)
    answer = ["chat", str(made["base"]), "--with", REPO, "--prompt", "Hello", "--tokens", "2", "--json"]
    assert run(answer) == 0


def test_a_local_path_is_never_looked_up(
    hub: HubStandIn, made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made["adapter"], tmp_path / REPO)
    read_enhancement(Path(REPO), None, "all")
    for missing in ("out/plan.safetensors", "out/vectors.gguf", "./out/plan", "out", "../out/x"):
        with pytest.raises(InputError):
            read_enhancement(Path(missing) if not missing.startswith("./") else tmp_path / missing, None, "all")
    assert hub.asked == []


def test_once_fetched_it_is_there_offline(
    hub: HubStandIn, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    burnish.push(made["enhancement"], REPO)
    online = burnish.pull(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(burnish.pull(REPO).gains, online.gains)


def test_of_a_strangers_repository_only_the_named_files_are_touched(hub: HubStandIn, made: dict[str, Path]) -> None:
    there = {
        MARK: b"{}",
        PLAN_FILE: made["enhancement"].read_bytes(),
        "../../escaped.safetensors": b"x",
        f"../{PLAN_FILE}": b"x",
        "/tmp/burnish-escaped": b"x",
        "pytorch_model.bin": b"x",
        "burnish/enhancement.pkl": b"x",
        "model.safetensors": b"x" * 9999,
    }
    hub.add(REPO, there)
    assert burnish.pull(REPO).rank == 1
    fetched = {path.partition("/resolve/")[2].partition("/")[2] for path in hub.requests("GET") if "/resolve/" in path}
    assert fetched == {MARK, PLAN_FILE}
    cache = Path(constants.HF_HUB_CACHE)
    assert not list(cache.parent.rglob("*escaped*"))
    assert not Path("/tmp/burnish-escaped").exists()


def test_a_base_model_with_paths_that_lead_out_is_refused(hub: HubStandIn, made: dict[str, Path]) -> None:
    hub.add(BASE, {**contents(made["base"]), "../../escaped.json": b"x"})
    refusal(lambda: resolve(BASE))
    assert not list(Path(constants.HF_HUB_CACHE).parent.rglob("escaped.json"))


@pytest.mark.parametrize(
    "damaged",
    [b"", b"not safetensors", b"\x08\0\0\0\0\0\0\0{}      "],
)
def test_a_damaged_enhancement_is_an_error_in_words(damaged: bytes, hub: HubStandIn) -> None:
    hub.add(REPO, {PLAN_FILE: damaged})
    refusal(lambda: burnish.pull(REPO), InputError)


def test_what_cannot_be_fetched_says_why(
    hub: HubStandIn, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("someone/plain", {"config.json": b"{}"})
    hub.add(REPO, {PLAN_FILE: made["enhancement"].read_bytes()}, private=True)
    assert "holds no enhancement" in refusal(lambda: burnish.pull("someone/plain"), InputError)
    assert "no such repository" in refusal(lambda: burnish.pull("someone/else"), ModelNotFoundError)
    assert "no such revision" in refusal(lambda: burnish.pull(REPO, revision="v9"), ModelNotFoundError)
    assert "no hub id" in refusal(lambda: burnish.pull("../x"), InputError)
    hub.faults[f"/api/models/{REPO}/revision/main"] = 403
    assert "does not allow it" in refusal(lambda: burnish.pull(REPO))
    hub.faults[f"/api/models/{REPO}/revision/main"] = 503
    assert "answered 503" in refusal(lambda: burnish.pull(REPO))
    hub.faults.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_ExpiredLongAgo")
    assert "does not accept the token" in refusal(lambda: burnish.pull(REPO))
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in refusal(lambda: burnish.pull(REPO), ModelNotFoundError)


def test_a_lora_on_the_hub_is_read_without_anything_else(
    hub: HubStandIn, made: dict[str, Path], tmp_path: Path
) -> None:
    from burnish.artifacts.hub import adapter_folder

    hub.add(REPO, {**contents(made["adapter"]), "adapter_model.bin": b"x", "optimizer.pt": b"x"})
    here, there = read_lora(made["adapter"]), read_lora(adapter_folder(Path(REPO)))
    assert all(torch.equal(here.factors[name][1], there.factors[name][1]) for name in here.factors)
    assert not [path for path in hub.requests("GET") if path.endswith((".bin", ".pt"))]
    hub.add("someone/plain", {"config.json": b"{}"})
    assert "holds no LoRA" in refusal(lambda: adapter_folder(Path("someone/plain")), InputError)


def test_a_base_model_on_the_hub_is_found_and_strengthened_from_there(
    hub: HubStandIn, made: dict[str, Path], tmp_path: Path
) -> None:
    hub.add(BASE, {**contents(made["base"]), "pytorch_model.bin": b"x", "optimizer.pt": b"x"})
    assert run(["apply", BASE, str(made["enhancement"]), "--form", "adapter", "-o", str(tmp_path / "out")]) == 0
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == BASE
    assert not [path for path in hub.requests("GET") if path.endswith((".bin", ".pt"))]
    assert "no such repository" in refusal(lambda: resolve("tiny/other"), ModelNotFoundError)
