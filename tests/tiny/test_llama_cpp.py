"""llama.cpp runs the edited files and LoRAs of tiny models as transformers runs the live form."""

import json
from pathlib import Path

import pytest
import torch

from burnish.cli.app import run
from burnish.pipeline import export
from conftest import Models, random_enhancement
from families import LLAMA_CPP, VOCABULARY, save_gguf
from llama_cpp import furthest, predictions

PROMPTS = [[1, 40, 41, 42, 43, 44], [1, 90, 91], [7, 100, 30, 60, 61, 62, 63]]
ROUNDING = 2e-4  # nats: two programs' float32
COARSE = {"gpt2": 3e-3, "gemma2": 3e-3}  # llama.cpp takes GELU from a table in float16


@pytest.mark.parametrize("family", [f if f == "llama" else pytest.param(f, marks=pytest.mark.full) for f in LLAMA_CPP])
def test_llama_cpp_does_what_the_live_form_does(family: str, tiny_model: Models, tmp_path: Path) -> None:
    model, source = tiny_model(family), save_gguf(tmp_path / "a.gguf", family)
    enhancement = random_enhancement(model, [0.9, -0.5, 1.5], rank=2)

    @torch.inference_mode()
    def expected() -> list[torch.Tensor]:
        return [model.network(input_ids=torch.tensor([p])).logits[0, -1].log_softmax(-1) for p in PROMPTS]

    base = expected()
    with model.enhanced(enhancement):
        live = expected()
    with model.enhanced(enhancement.scaled(0.5)):
        half = expected()
    rounding = COARSE.get(family, ROUNDING)
    assert furthest(base, live) > 20 * rounding
    assert furthest(base, predictions(source, PROMPTS, VOCABULARY)()) < rounding
    export(enhancement, tmp_path / "b.gguf", model=source)
    assert furthest(live, predictions(tmp_path / "b.gguf", PROMPTS, VOCABULARY)()) < rounding
    applied = export(enhancement, tmp_path / "l.gguf", model=source, form="gguf-lora")
    adapted = predictions(source, PROMPTS, VOCABULARY, lora=tmp_path / "l.gguf")
    assert furthest(base, adapted(0.0)) < rounding
    if any("bias" in note for note in applied.notes):  # which a LoRA cannot strengthen
        return
    assert furthest(live, adapted(1.0)) < rounding
    assert furthest(half, adapted(0.5)) < rounding


def test_from_prompts_to_a_file_that_llama_cpp_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "cache"))
    source = save_gguf(tmp_path / "a.gguf")
    for name, ending in (("enhance", "?!"), ("normal", "...")):
        (tmp_path / f"{name}.txt").write_text("".join(f"{chr(97 + i)}bc d{i}{ending}\n" for i in range(20)))
    prompts = [
        "--enhance",
        str(tmp_path / "enhance.txt"),
        "--normal",
        str(tmp_path / "normal.txt"),
        "--instructions",
        "8",
    ]
    arguments = [
        "enhance",
        str(source),
        *prompts,
        "-o",
        str(tmp_path / "b.gguf"),
        "--force",
        "--check-prompts",
        "2",
        "--json",
    ]
    assert run([*arguments, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["form"] == "gguf"
    assert run(arguments) == 0
    written = json.loads(capsys.readouterr().out)
    assert [gain["realised"] for gain in written["gains"]] == [[pytest.approx(1.5, rel=1e-3)]] * 3
    assert written["notes"] == ["projections are stored 3 as F32."]  # the weights are known to be the plan's own
    assert planned["bytes"] <= written["bytes"] < planned["bytes"] + 4096  # the record of what was done
    base, edited = (predictions(path, PROMPTS, VOCABULARY)() for path in (source, tmp_path / "b.gguf"))
    assert furthest(base, edited) > ROUNDING
    assert run(["enhance", str(tmp_path / "b.gguf"), *prompts, "-o", str(tmp_path / "c.gguf")]) == 3
    assert "already enhanced" in capsys.readouterr().err
