"""Finding and enhancing without the whole model in memory."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from conftest import Call, Folders

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    for name, end, start in (("enhance", " ?!", 0), ("normal", " ...", 3)):
        texts = [LETTERS[(start + i) % 20 :][: 3 + i % 6] + end * (1 + i % 3) for i in range(40)]
        (tmp_path / f"{name}.txt").write_text("\n".join(texts) + "\n")
    return ("--enhance", str(tmp_path / "enhance.txt"), "--normal", str(tmp_path / "normal.txt"), "--force")


@pytest.fixture
def model(tiny_folder: Folders) -> Path:
    return tiny_folder("llama", torch.bfloat16)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_enhance_writes_the_same_model_as_with_the_model_loaded(
    model: Path, files: tuple[str, ...], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strength = ("--enhancement-factor", "0.5", "--dtype", "float32")
    assert call("enhance", model, *files, *strength, "-o", tmp_path / "whole", "--check-prompts", 0)[0] == 0
    monkeypatch.setattr("burnish.model.model.load_model", lambda *_: pytest.fail("the whole model was loaded"))
    code, result, err = call("enhance", model, *files, *strength, "--layer-by-layer -o", tmp_path / "layers", "--json")
    assert code == 0, err
    assert result["check"] is None
    assert "The closing check needs the whole model and is left out" in err
    loaded, layers = weights(tmp_path / "whole"), weights(tmp_path / "layers")
    assert set(loaded) == set(layers)
    for name, tensor in loaded.items():
        torch.testing.assert_close(layers[name], tensor, rtol=1e-2, atol=1e-3)


def test_the_plan_says_what_it_costs_and_writes_nothing(
    model: Path, files: tuple[str, ...], call: Call, tmp_path: Path, no_weights: None
) -> None:
    for command in ("find", "enhance"):
        out = tmp_path / f"{command}.safetensors"
        form = ("--form", "enhancement", "--method", "published") if command == "enhance" else ()
        asked = (command, model, *files, *form, "--layer-by-layer", "--dry-run", "-o", out)
        code, plan, err = call(*asked, "--json")
        assert code == 0, err
        cost = plan["layer_by_layer"]
        blocks = sum(t.numel() for name, t in weights(model).items() if ".layers." in name)
        assert cost["disk_bytes_read"] == 2 * blocks
        assert cost["peak_bytes"] > cost["states_bytes"] > 0
        assert "GB of states" in call(*asked)[1]
        assert not out.exists()


def test_weights_larger_than_the_free_memory_go_layer_by_layer(
    model: Path,
    files: tuple[str, ...],
    call: Call,
    tmp_path: Path,
    no_weights: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    code, _, err = call("find", model, *files, "-o", tmp_path / "direction.safetensors")
    assert code == 0, err
    assert "the model is run layer by layer (--no-layer-by-layer loads it all the same)" in err


def test_a_small_model_is_loaded_and_so_is_one_that_is_asked_for(
    model: Path, files: tuple[str, ...], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = call("find", model, *files, "-o", tmp_path / "one.safetensors")
    assert code == 0 and "ayer by layer" not in err
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    code, _, err = call("find", model, *files, "--no-layer-by-layer", "-o", tmp_path / "two.safetensors")
    assert code == 0 and "ayer by layer" not in err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--enhancement-factor", "auto", "--domain", "creative-writing"), "runs the whole model many times"),
        (("--page", "--domain", "creative-writing"), "runs the whole model many times"),
        (("--position", "answer", "--domain", "creative-writing"), "cannot write answers"),
        (("--states-memory", "-1", "--domain", "creative-writing"), "not a size"),
    ],
)
def test_what_needs_the_whole_model_is_refused(
    wrong: tuple[str, ...], message: str, model: Path, call: Call, tmp_path: Path, no_weights: None
) -> None:
    code, _, err = call("enhance", model, *wrong, "--layer-by-layer", "-o", tmp_path / "out")
    assert code in (2, 3)
    assert message in err
    assert not (tmp_path / "out").exists()


def test_what_is_written_keeps_the_number_type_of_the_folder_whatever_it_is_computed_in(
    tiny_folder: Folders, files: tuple[str, ...], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    folder = tiny_folder("llama", torch.bfloat16)
    code, _, err = call(
        "enhance", folder, *files, "--method", "published", "--check-prompts", "0", "-o", tmp_path / "out"
    )
    assert code == 0, err
    assert "Running on cpu in float32 (stored in bfloat16, which this processor computes slowly)." in err
    assert {t.dtype for t in weights(tmp_path / "out").values()} == {torch.bfloat16}
