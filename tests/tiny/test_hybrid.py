"""A LoRA beside a direction: what each way of combining them promises, on random models."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.lora import LoraAdapter
from burnish.errors import InputError, ModelError, OutputExistsError
from burnish.hybrid import trainers
from burnish.hybrid.barrier import everyday_answers
from burnish.hybrid.combining import Protection
from burnish.hybrid.result import Trained, read_trained
from burnish.hybrid.training import prepare, train
from burnish.inspecting import verify_folders
from burnish.model.folder_plan import FolderPlan
from burnish.model.live import live_edit
from burnish.model.model import Model, load, outline
from burnish.options import ModelOptions, TrainOptions
from conftest import Folders, Models, random_enhancement
from families import case

FLOAT = ModelOptions(dtype="float32")
ROWS = [{"prompt": f"What is {w}?", "completion": f"{w * 3} it is."} for w in "abcdefghij"]
QUICK = TrainOptions(steps=3, batch=4, rank=3, learning_rate=5e-3, barrier_prompts=4, barrier_tokens=4, held_out=0.0)
TOKENS = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def logits(network: Any) -> torch.Tensor:
    return network(input_ids=TOKENS, use_cache=False).logits


def quick(model: Model, combine: Any = None, gains: float = 0.3, **settings: Any) -> Trained:
    enhancement = None if combine == "plain" else random_enhancement(model, gains)
    options = replace(QUICK, **settings)
    return train(model, ROWS, enhancement=enhancement, combine=combine, options=options, check_prompts=0)


@pytest.mark.parametrize("family", ["gemma2", case("llama", full=True), case("gpt2", full=True)])
def test_keep_is_the_same_live_as_adapter_and_baked(family: str, tiny_model: Models, tmp_path: Path) -> None:
    from peft import PeftModel

    model = tiny_model(family)
    trained = quick(model, "keep")
    base = logits(model.network)
    with trained.live(model):
        live = logits(model.network)
    # Underneath the enhancement's hooks, on top of them the LoRA: what it was trained as.
    lora_only = Trained(trained.lora, None, trained.record)
    with live_edit(model.network, model.anatomy, trained.enhancement), lora_only.live(model):  # type: ignore[arg-type]
        torch.testing.assert_close(logits(model.network), live, rtol=1e-4, atol=1e-5)
    assert (live - base).abs().max() > 1e-3
    baked = load(trained.export(tmp_path / "model", form="model").out, FLOAT)
    torch.testing.assert_close(logits(baked.network), live, rtol=1e-3, atol=2e-4)
    adapter = trained.export(tmp_path / "adapter").out
    adapted = PeftModel.from_pretrained(model.network, adapter)
    torch.testing.assert_close(logits(adapted), live, rtol=1e-3, atol=2e-4)
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(logits(merged), logits(baked.network), rtol=1e-3, atol=2e-4)


def test_the_rank_of_the_sum_is_the_sum_of_the_ranks(tiny_model: Models) -> None:
    model = tiny_model("llama")
    trained = quick(model, "keep")
    ranks = {layer.projection.path: len(layer.a) for layer in trained.adapter_layers(FolderPlan(model.folder, FLOAT))}
    edited = {p.path for p in model.anatomy.attention()}
    assert {path: 4 if path in edited else 3 for path in ranks} == ranks


def test_the_model_is_left_as_it_was(tiny_model: Models) -> None:
    model = tiny_model("llama")
    before = {name: p.clone() for name, p in model.network.named_parameters()}
    expected = logits(model.network)
    quick(model, "keep")
    after = dict(model.network.named_parameters())
    assert list(after) == list(before)
    assert all(torch.equal(after[name], p) and not after[name].requires_grad for name, p in before.items())
    assert torch.equal(logits(model.network), expected)
    assert not model.network.training
    assert "forward" not in vars(model.network)


def test_training_tells_nobody(tiny_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would report each training to its makers."""
    sent: list[object] = []
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", lambda *a, **k: sent.append((a, k)))
    quick(tiny_model("llama"))
    assert sent == []


@pytest.mark.parametrize("family", ["gemma2", case("llama", full=True)])
def test_protect_writes_nothing_along_the_directions(family: str, tiny_model: Models) -> None:
    model = tiny_model(family)
    trained = quick(model, "protect", budget=10.0)
    maps = prepare(model, ROWS, options=QUICK).maps
    protection = Protection.of(trained.enhancement, model.anatomy, maps, model.network)  # type: ignore[arg-type]
    assert share_along(protection, trained.lora) < 1e-6
    assert share_along(protection, quick(model, "keep").lora) > 1e-3
    writing = {p.path for p in model.anatomy.attention()} | {m.path for m in maps if m.path.endswith("down_proj")}
    assert set(protection.bases) == writing


def share_along(protection: Protection, lora: LoraAdapter) -> float:
    """The largest share, over the maps, of the change that lies along a protected direction."""
    changes = {path: b.double() @ a.double() for path, (a, b) in lora.factors.items()}
    return max(
        float((basis.T @ changes[path]).norm() / changes[path].norm()) for path, basis in protection.bases.items()
    )


def test_protect_stays_within_its_budget(tiny_model: Models) -> None:
    model = tiny_model("llama")
    budget = 0.004
    trained = quick(model, "protect", gains=0.05, budget=budget, learning_rate=3e-2)
    moved = trained.record["everyday_kl"]
    assert 0 < moved["low"] < moved["mean"] < moved["high"] <= budget
    assert 0 < trained.record["scale"] < 1
    free = quick(model, "keep", gains=0.05, learning_rate=3e-2)
    assert free.record["everyday_kl"] is None
    assert free.record["scale"] == 1


def test_the_budget_is_measured_on_prompts_that_the_barrier_does_not_hold(tiny_model: Models) -> None:
    everyday = everyday_answers(tiny_model("llama"), TrainOptions(barrier_tokens=2))
    barred, measured = ({tuple(i.prompt) for i in items} for items in (everyday.barred, everyday.measured))
    assert barred and measured
    assert not barred & measured


def test_an_enhancement_above_the_budget_is_refused_before_training(tiny_model: Models) -> None:
    with pytest.raises(ModelError, match="alone moves everyday answers"):
        quick(tiny_model("llama"), "protect", gains=3.0, budget=1e-6)


def differs(one: LoraAdapter, other: LoraAdapter) -> bool:
    return any(
        not torch.equal(a, b) for p in one.factors for a, b in zip(one.factors[p], other.factors[p], strict=True)
    )


def test_the_directions_strength_stays_adjustable(tiny_model: Models, tmp_path: Path) -> None:
    model = tiny_model("llama")
    trained = quick(model, "keep", gains=0.4)
    folder = trained.export(tmp_path / "adapter").out
    again = read_trained(folder)
    with trained.live(model):
        expected = logits(model.network)
    with again.live(model):
        torch.testing.assert_close(logits(model.network), expected, rtol=1e-5, atol=1e-5)
    none = again.scaled(0.0)
    with Trained(trained.lora, None, trained.record).live(model):
        expected = logits(model.network)
    with none.live(model):
        torch.testing.assert_close(logits(model.network), expected, rtol=1e-5, atol=1e-5)


def test_a_killed_training_resumes_to_the_same_result(
    tiny_model: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    settings = {"steps": 6, "check_every": 2, "held_out": 0.2, "budget": 0.05}
    options = TrainOptions(**{**vars(QUICK), **settings})
    enhancement = random_enhancement(model, 0.1)

    def training(folder: Path) -> Trained:
        return train(
            model,
            ROWS,
            knowledge=[{"prompt": "Who?", "completion": "Nobody at all."}] * 4,
            enhancement=enhancement,
            combine="protect",
            options=options,
            checkpoints=folder,
            check_prompts=0,
        )

    uninterrupted = training(tmp_path / "whole")
    real = trainers.Watch.on_step_end

    def killed(self: Any, arguments: Any, state: Any, control: Any, **named: Any) -> None:
        real(self, arguments, state, control, **named)
        if state.global_step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainers.Watch, "on_step_end", killed)
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "parts")
    steps = []

    def counted(self: Any, arguments: Any, state: Any, control: Any, **named: Any) -> None:
        steps.append(state.global_step)
        real(self, arguments, state, control, **named)

    monkeypatch.setattr(trainers.Watch, "on_step_end", counted)
    assert (tmp_path / "parts" / "checkpoint-4").is_dir()
    resumed = training(tmp_path / "parts")
    assert steps == [5, 6]
    assert resumed.record["losses"] == uninterrupted.record["losses"]
    assert not differs(uninterrupted.lora, resumed.lora)


def test_checkpoints_of_another_training_are_not_gone_on_from(tiny_model: Models, tmp_path: Path) -> None:
    model = tiny_model("llama")
    train(model, ROWS, options=QUICK, checkpoints=tmp_path / "kept", check_prompts=0)
    with pytest.raises(OutputExistsError, match="another training"):
        train(model, ROWS[:5], options=QUICK, checkpoints=tmp_path / "kept", check_prompts=0)


def test_training_stops_early_and_keeps_the_best(tiny_model: Models) -> None:
    model = tiny_model("llama")
    trained = quick(model, "plain", steps=40, check_every=1, patience=2, held_out=0.3, learning_rate=0.3)
    record = trained.record
    measured = [loss for _, _, loss in record["losses"] if loss is not None]
    assert record["stopped_early"]
    assert record["steps"] < 40
    assert record["held_out_after"] == pytest.approx(min(measured), rel=1e-4)


def test_preference_rows_are_learnt_by_dpo(tiny_model: Models) -> None:
    model = tiny_model("llama")
    rows = [{"prompt": r["prompt"], "chosen": r["completion"], "rejected": "no no"} for r in ROWS]
    enhancement = random_enhancement(model, 0.2)
    options = TrainOptions(**{**vars(QUICK), "steps": 10, "learning_rate": 1e-2})
    trained = train(model, rows, enhancement=enhancement, combine="keep", options=options, check_prompts=0)
    losses = [loss for _, loss, _ in trained.record["losses"]]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < 0.6
    assert not [n for n, _ in model.network.named_modules() if "lora" in n]
    with pytest.raises(InputError, match="another loss"):
        train(model, rows, knowledge=ROWS, options=QUICK)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_verify_finds_what_was_trained_and_nothing_else(
    dtype: torch.dtype, tiny_folder: Folders, tmp_path: Path
) -> None:
    folder = tiny_folder("llama", dtype)
    model = load(folder, FLOAT)
    out = quick(model, "keep").export(tmp_path / "model", form="model").out
    verification = verify_folders(folder, out, FLOAT)
    assert verification.clean
    assert len(verification.edited) == 3
    assert len(verification.trained) == 18
    record = json.loads((out / "burnish.json").read_text())
    for gain in record["gains"]:
        assert gain["realised"] == pytest.approx([0.3], rel=0.1)
    record["sha256"][verification.trained[0]] = "0" * 64
    (out / "burnish.json").write_text(json.dumps(record))
    assert verify_folders(folder, out, FLOAT).changed_elsewhere == (verification.trained[0],)


def test_a_small_lora_survives_bfloat16(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = tiny_folder("llama", torch.bfloat16)
    trained = quick(load(folder, FLOAT), "plain", learning_rate=2e-4)
    out = trained.export(tmp_path / "model", form="model").out
    before, after = Checkpoint(folder), Checkpoint(out)
    along, to_nearest = [], []
    for path, (a, b) in trained.lora.factors.items():
        weight, asked = before.read(f"{path}.weight").float(), b @ a
        assert asked.norm() < 0.01 * weight.norm()
        for shares, stored in ((along, after.read(f"{path}.weight")), (to_nearest, (weight + asked).bfloat16())):
            shares.append(float(((stored.float() - weight) * asked).sum() / asked.square().sum()))
    # With 16 to 48 rows a map the last of them cannot make good all; see `test_a_tiny_addition_survives_bfloat16` for a wide one.
    assert sum(along) / len(along) > 2 * sum(to_nearest) / len(to_nearest)


@pytest.mark.parametrize(
    ("combine", "given", "message"),
    [
        ("keep", False, "needs an enhancement"),
        ("plain", True, "takes no enhancement"),
    ],
)
def test_ways_that_cannot_be_are_refused_without_weights(
    combine: Any, given: bool, message: str, tiny_folder: Folders, tiny_model: Models
) -> None:
    enhancement = random_enhancement(tiny_model("llama"), 0.2, rank=2) if given else None
    drawn = outline(tiny_folder("llama"))
    assert all(p.is_meta for p in drawn.network.parameters())
    with pytest.raises(InputError, match=message):
        prepare(drawn, ROWS, enhancement=enhancement, combine=combine, options=TrainOptions(rank=1))
