"""What a training leaves: an enhancement (or none) and a LoRA, as one adapter or one baked model."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from burnish.anatomy import LinearMap, linear_maps
from burnish.artifacts.adapter import AdapterLayer, write_adapter
from burnish.artifacts.bake import LayerGain, TensorEdit, bake, tensor_edits
from burnish.artifacts.card import base_facts, card_text, trained_card
from burnish.artifacts.copying import copied_bytes
from burnish.artifacts.direction import Enhancement
from burnish.artifacts.files import (
    LORA_FOLDER,
    MARK,
    PLAN_FILE,
    TRAINED,
    check_output,
    is_trained,
    overlapping,
    read_table,
    stored_size,
)
from burnish.artifacts.lora import LoraAdapter, read_lora
from burnish.errors import InputError, OutputError, WrongModelError
from burnish.hybrid.combining import total_layers
from burnish.maths.gain import LowRankEdit
from burnish.model.folder_plan import FolderPlan
from burnish.model.live import live_layers
from burnish.model.model import Model
from burnish.model.packaged import public_name
from burnish.options import Combine, Form, ModelOptions
from burnish.pipeline import Applied, adapter_layers, left_out_notes, open_plan
from burnish.steps import Progress

SAID: dict[Combine, str] = {
    "plain": "a LoRA alone",
    "keep": "it stays underneath the LoRA",
    "protect": "it stays underneath, and the LoRA writes nothing along it",
}


@dataclass(frozen=True)
class Trained:
    """A LoRA and what it goes with."""

    lora: LoraAdapter
    enhancement: Enhancement | None  # the part whose strength can still be changed
    record: dict[str, Any]  # how it was trained: JSON
    check: dict[str, Any] | None = None  # the closing check of general prompts

    @property
    def combine(self) -> Combine:
        found: Combine = self.record["combine"]
        return found

    def scaled(self, factor: float) -> "Trained":
        """The same LoRA beside a direction `factor` times as strong. Raises InputError where no direction is part of it."""
        if self.enhancement is None:
            raise InputError(
                f"There is no direction beside this LoRA ({self.combine}: {SAID[self.combine]}), so that no strength of one can be set. Leave "
                "out --enhancement-factor, or train with --combine keep."
            )
        record = {**self.record, "enhancement_factor": factor * self.record.get("enhancement_factor", 1.0)}
        return replace(self, enhancement=self.enhancement.scaled(factor), record=record, check=None)

    def layers(self, plan: FolderPlan) -> list[AdapterLayer]:
        """The sum as one adapter. Raises WrongModelError for other weights."""
        maps = _maps(linear_maps(plan.network, plan.anatomy), self.lora)
        own = (
            []
            if self.enhancement is None or not self.enhancement.edited_layers()
            else adapter_layers(plan, self.enhancement)
        )
        return total_layers(own, self.lora, maps)

    @contextmanager
    def live(self, model: Model) -> Iterator[Model]:
        """The sum in a loaded model, gone on exit."""
        self.require(model.fingerprint)
        with live_layers(model.network, self.layers(FolderPlan(model.folder, ModelOptions()))):
            yield model

    def require(self, fingerprint: str) -> None:
        """Raises WrongModelError unless trained on the weights with that fingerprint."""
        if self.record["fingerprint"] != fingerprint:
            raise WrongModelError(
                f"This was trained on {self.record['base']} with weights {self.record['fingerprint'][:12]}, and the model's weights are "
                f"{fingerprint[:12]}. Pass the model it was trained on."
            )

    def export(
        self,
        out: Path | str,
        *,
        form: Form = "adapter",
        model: str | Path | None = None,
        overwrite: bool = False,
        options: ModelOptions | None = None,
        progress: Progress | None = None,
    ) -> Applied:
        """Writes one PEFT adapter (rank: the directions' and the LoRA's) or one model folder, by the same streaming writer as any
        enhancement. model: the base, by default where it was trained.

        Raises InputError for another form, WrongModelError for other weights, OutputExistsError, DiskFullError.
        """
        name = self.record["base"] if model is None else str(model)
        plan = open_plan(name, options or ModelOptions(), again=True)
        self.require(plan.checkpoint.fingerprint)
        rank = self.record["options"]["rank"] + (0 if self.enhancement is None else self.enhancement.rank)
        out = Path(out)
        check_result(
            plan,
            out,
            form,
            _maps(linear_maps(plan.network, plan.anatomy), self.lora).values(),
            rank,
            overwrite=overwrite,
        )
        about = {"burnish": TRAINED, **self.record, "check": self.check}
        base = base_facts(public_name(name), card_text(plan.folder))

        def extras(folder: Path, gains: Sequence[LayerGain] = ()) -> None:
            (folder / "README.md").unlink(missing_ok=True)
            text = trained_card(
                self.record, self.enhancement, form=form, way=SAID[self.combine], base=base, check=self.check
            )
            (folder / "README.md").write_text(text, encoding="utf-8")
            if self.enhancement is not None:
                self.enhancement.save(folder / PLAN_FILE, overwrite=True)
            if self.enhancement is not None or form == "model":
                _write_lora(folder / LORA_FOLDER, self.lora, plan, name)

        if form == "model":
            done = bake(plan.checkpoint, out, self._edits(plan), about, extras, overwrite=overwrite, progress=progress)
            return Applied(out, form, done.bytes, done.gains, plan.anatomy.coverage(), left_out_notes(plan.folder))
        write_adapter(out, self.layers(plan), about, extras, base_model=_base_model(name, plan), overwrite=overwrite)
        return Applied(out, form, stored_size(out), (), plan.anatomy.coverage())

    def _edits(self, plan: FolderPlan) -> list[TensorEdit]:
        """Every tensor that changes: the enhancement's with what the LoRA adds, then those that only the LoRA changes."""
        edits = [] if self.enhancement is None else tensor_edits(plan.checkpoint, plan.edits(self.enhancement))
        found = {edit.name: edit for edit in edits}
        maps = _maps(linear_maps(plan.network, plan.anatomy), self.lora)
        for path, (a, b) in self.lora.factors.items():
            item = maps[path]
            shape = (item.outputs, item.inputs) if item.layout == "out_in" else (item.inputs, item.outputs)
            name = plan.checkpoint.match(path, "weight", shape)
            nothing = LowRankEdit(torch.zeros(item.outputs, 0), torch.zeros(0, item.outputs))
            found[name] = replace(found.get(name) or TensorEdit(name, item, nothing), addition=(b, a))
        return list(found.values())


def check_result(
    plan: FolderPlan, out: Path, form: Form, maps: Iterable[LinearMap], rank: int, *, overwrite: bool
) -> int:
    """The bytes to be written, after everything that can fail before. Raises InputError, OutputError, DiskFullError."""
    if form == "enhancement":
        raise InputError("A training is more than an enhancement file. Pass --form adapter or --form model.")
    if overlapping(plan.folder, out):
        raise OutputError(f"{out} is, holds or lies in the model's own folder {plan.folder}. Pass another path.")
    size: int = copied_bytes(plan.folder) if form == "model" else 4 * rank * sum(m.inputs + m.outputs for m in maps)
    check_output(out, size, overwrite=overwrite, resumable=form == "model")
    return size


def read_trained(folder: Path) -> Trained:
    """What `Trained.export` wrote. Raises InputError for any other folder."""
    if not is_trained(folder):
        raise InputError(f"{folder} was not written by `burnish train`. Pass its output folder.")
    about = read_table(folder / MARK)
    plan, lora = folder / PLAN_FILE, folder / LORA_FOLDER
    record = {
        key: value
        for key, value in about.items()
        if key not in ("burnish", "check", "gains", "sha256", "source_fingerprint")
    }
    return Trained(
        read_lora(lora if lora.exists() else folder),
        Enhancement.load(plan) if plan.exists() else None,
        record,
        about.get("check"),
    )


def _maps(maps: Sequence[LinearMap], lora: LoraAdapter) -> dict[str, LinearMap]:
    """Those that the LoRA changes, by path. Raises WrongModelError where one is missing."""
    known = {m.path: m for m in maps}
    missing = [path for path in lora.factors if path not in known]
    if missing:
        raise WrongModelError(
            f"The LoRA changes '{missing[0]}', which this model does not have. Pass the model it was trained on."
        )
    return {path: known[path] for path in lora.factors}


def _write_lora(folder: Path, lora: LoraAdapter, plan: FolderPlan, name: str) -> None:
    maps = _maps(linear_maps(plan.network, plan.anatomy), lora)
    layers = [AdapterLayer(maps[path], a, b.contiguous(), None) for path, (a, b) in sorted(lora.factors.items())]
    write_adapter(folder, layers, {"burnish": "part of a training: the LoRA alone"}, base_model=_base_model(name, plan))


def _base_model(name: str, plan: FolderPlan) -> str:
    return name if "/" in name and not Path(name).exists() else str(plan.folder)
