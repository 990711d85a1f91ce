"""What a training leaves: an enhancement (or none) and a LoRA, as one adapter or one baked model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from burnish.anatomy import LinearMap, linear_maps
from burnish.artifacts.adapter import AdapterLayer, write_adapter
from burnish.artifacts.bake import LayerGain, TensorEdit, tensor_edits
from burnish.artifacts.card import trained_card
from burnish.artifacts.card_words import CardWords
from burnish.artifacts.direction import Enhancement
from burnish.artifacts.files import LORA_FOLDER, MARK, PLAN_FILE, TRAINED, is_trained, read_table
from burnish.artifacts.lora import LoraAdapter, read_lora
from burnish.errors import InputError, WrongModelError
from burnish.forms import form_of, forms
from burnish.forms.base import Applied, Expected, Form, Job
from burnish.hybrid.combining import total_layers
from burnish.maths.gain import LowRankEdit
from burnish.model.folder_plan import FolderPlan
from burnish.model.live import live_layers
from burnish.model.model import Model
from burnish.options import Combine, FormName, ModelOptions, OutputOptions
from burnish.pipeline import adapter_layers, open_plan, write
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
        way: Combine = self.record["combine"]
        return way

    def scaled(self, factor: float) -> "Trained":
        """The same LoRA beside a direction `factor` times as strong. Raises InputError where no direction is part of it."""
        if self.enhancement is None:
            raise InputError(
                f"There is no direction beside this LoRA ({self.combine}: {SAID[self.combine]}), so that no strength of one can be set. Leave "
                "out --enhancement-factor, or train with --combine keep."
            )
        record = {**self.record, "enhancement_factor": factor * self.record.get("enhancement_factor", 1.0)}
        return replace(self, enhancement=self.enhancement.scaled(factor), record=record, check=None)

    def adapter_layers(self, plan: FolderPlan) -> list[AdapterLayer]:
        """The sum as one adapter. Raises WrongModelError for other weights."""
        maps = _maps(linear_maps(plan.network, plan.anatomy), self.lora)
        return total_layers(enhancement_layers(plan, self.enhancement), self.lora, maps)

    @contextmanager
    def live(self, model: Model) -> Iterator[Model]:
        """The sum in a loaded model, gone on exit."""
        self._require(model.fingerprint)
        with live_layers(model.network, self.adapter_layers(FolderPlan(model.folder, ModelOptions()))):
            yield model

    def require(self, plan: FolderPlan) -> None:
        self._require(plan.checkpoint.fingerprint)

    def _require(self, fingerprint: str) -> None:
        if self.record["fingerprint"] != fingerprint:
            raise WrongModelError(
                f"This was trained on {self.record['base']} with weights {self.record['fingerprint'][:12]}, and the model's weights are "
                f"{fingerprint[:12]}. Pass the model it was trained on."
            )

    def expected(self, plan: FolderPlan, name: str) -> Expected:
        maps = list(_maps(linear_maps(plan.network, plan.anatomy), self.lora).values())
        return expected_of(maps, self.record["options"]["rank"], self.enhancement)

    def about(self, name: str) -> dict[str, Any]:
        """What `burnish.json` says."""
        return {"burnish": TRAINED, **self.record, "check": self.check}

    def tensor_edits(self, plan: FolderPlan) -> list[TensorEdit]:
        """Every tensor that changes: the enhancement's with what the LoRA adds, then those that only the LoRA changes."""
        edits = [] if self.enhancement is None else tensor_edits(plan.checkpoint, plan.edits(self.enhancement))
        by_name = {edit.name: edit for edit in edits}
        maps = _maps(linear_maps(plan.network, plan.anatomy), self.lora)
        for path, (a, b) in self.lora.factors.items():
            item = maps[path]
            shape = (item.outputs, item.inputs) if item.layout == "out_in" else (item.inputs, item.outputs)
            name = plan.checkpoint.match(path, "weight", shape)
            nothing = LowRankEdit(torch.zeros(item.outputs, 0), torch.zeros(0, item.outputs))
            by_name[name] = replace(by_name.get(name) or TensorEdit(name, item, nothing), addition=(b, a))
        return list(by_name.values())

    def card(self, words: CardWords, base: dict[str, Any], gains: Sequence[LayerGain]) -> str:
        way = SAID[self.combine]
        return trained_card(self.record, self.enhancement, words=words, way=way, base=base, check=self.check)

    def write_beside(self, folder: Path, form: Form, job: Job) -> None:
        """The enhancement, and the LoRA alone where the output's own weights are a sum."""
        if self.enhancement is not None:
            self.enhancement.save(folder / PLAN_FILE, overwrite=True)
        if self.enhancement is not None or form.copies:
            maps = _maps(linear_maps(job.plan.network, job.plan.anatomy), self.lora)
            layers = [AdapterLayer(maps[p], a, b.contiguous(), None) for p, (a, b) in sorted(self.lora.factors.items())]
            about = {"burnish": "part of a training: the LoRA alone"}
            write_adapter(folder / LORA_FOLDER, layers, about, base_model=job.base_model)

    def export(
        self,
        out: Path | str,
        *,
        form: FormName = "adapter",
        model: str | Path | None = None,
        overwrite: bool = False,
        options: ModelOptions | None = None,
        progress: Progress | None = None,
        recipe: str | None = None,
    ) -> Applied:
        """Writes one PEFT adapter (rank: the directions' and the LoRA's) or one model folder. model: the base, by default where it
        was trained.

        Raises InputError for another form, WrongModelError for other weights, OutputExistsError, DiskFullError.
        """
        training_form(form)
        name = self.record["base"] if model is None else str(model)
        plan = open_plan(name, options or ModelOptions(), again=True)
        return write(Job(plan, self, OutputOptions(Path(out), form, overwrite), name, progress=progress, recipe=recipe))


def enhancement_layers(plan: FolderPlan, enhancement: Enhancement | None) -> list[AdapterLayer]:
    """The enhancement's factors on the stored weights; none without one that edits."""
    return adapter_layers(plan, enhancement) if enhancement is not None and enhancement.edited_layers() else []


def training_form(name: FormName) -> Form:
    """The form of that name. Raises InputError where it cannot hold a LoRA."""
    form = form_of(name)
    if not form.trains:
        able = " or ".join(f"--form {other.name}" for other in forms() if other.trains)
        raise InputError(f"A training is more than form {name} holds. Pass {able}.")
    return form


def expected_of(maps: Sequence[LinearMap], rank: int, enhancement: Enhancement | None) -> Expected:
    """What a training of a LoRA of that rank writes. enhancement: the part of the result, if any."""
    if enhancement is None:
        return Expected(maps, rank)
    return Expected(maps, rank + enhancement.rank, len(enhancement.as_bytes()))


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
