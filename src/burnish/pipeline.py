"""From a plan to files: what `enhance`, `apply` and `burnish.export` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.artifacts.adapter import checkpoint_layers
from burnish.artifacts.bake import LayerGain, TensorEdit, tensor_edits
from burnish.artifacts.card import model_card
from burnish.artifacts.direction import Direction, Enhancement
from burnish.artifacts.direction_file import kind_of, stored_bytes
from burnish.artifacts.files import MARK, PLAN_FILE, is_trained, read_mark, refuse_partial
from burnish.artifacts.hub import enhancement_folder
from burnish.errors import InputError, NoDirectionError, QuantisedModelError, WrongModelError
from burnish.forms import form_of
from burnish.forms.base import Applied, Expected, Form, Job, WritePlan
from burnish.mix import Mix
from burnish.model.folder_plan import FolderPlan
from burnish.model.source import resolve
from burnish.options import FormName, ModelOptions, OutputOptions, checked_strength
from burnish.steps import Progress

if TYPE_CHECKING:
    from burnish.artifacts.adapter import AdapterLayer
    from burnish.artifacts.card_words import CardWords
    from burnish.artifacts.copying import FolderCopy
    from burnish.checking import Check


def require_direction(direction: Direction, *, force: bool) -> None:
    """Raises NoDirectionError when the held-out separation is not above its shuffled-label null."""
    if direction.found or force:
        return
    layer = direction.layer
    raise NoDirectionError(
        f"There is no such direction at layer {layer}: on held-out prompts it separates the two sets no better than shuffled labels "
        f"do (AUROC {direction.report.auroc[layer]:.3f}, null {direction.report.null_auroc[layer]:.3f}). Pass more or more different "
        "prompts, another --layer-idx, or --force to go on all the same."
    )


def open_plan(
    model: str | Path,
    options: ModelOptions,
    *,
    again: bool = False,
    enhancement: Enhancement | None = None,
    form: FormName = "model",
) -> FolderPlan:
    """The model folder without its weights; a `.gguf` file is converted, unless the form is made from it as it is.

    enhancement: one made on these very weights saves building the architecture. Raises WrongModelError for a model that was
    enhanced before, unless `again`.
    """
    if enhancement is not None and not form_of(form).converts:
        from burnish.model.gguf_plan import gguf_path, require_unedited

        path = gguf_path(model)
        require_unedited(path, again=again)
        return FolderPlan(path, options, path, enhancement.anatomy)
    gguf = Path(model).expanduser() if Path(model).suffix == ".gguf" else None
    if gguf is not None and gguf.is_file():
        from burnish.model.gguf_plan import require_unedited

        require_unedited(gguf, again=again)
    plan = FolderPlan(resolve(model, revision=options.revision), options, gguf)
    if (plan.folder / MARK).exists() and not again:
        raise WrongModelError(
            f"{plan.folder} is already enhanced (it holds {MARK}): applying again would multiply the gains, (1 + a)^2. "
            "Pass the original model, or --force if that is what you want."
        )
    if enhancement is not None and enhancement.provenance.fingerprint == plan.checkpoint.fingerprint:
        return replace(plan, known=enhancement.anatomy)
    return plan


def write_plan(
    plan: FolderPlan,
    output: OutputOptions,
    layers: Sequence[int],
    *,
    rank: int = 1,
    enhancement: Enhancement | None = None,
    name: str = "",
    recipe: str | None = None,
) -> WritePlan:
    """Checks everything that can fail before writing: the layers' tensors, the disk, the output path.

    layers: those with a gain other than zero; enhancement: where it is known, its size is; name: the base model as the user calls it.
    Raises InputError, ModelError, QuantisedModelError, OutputError.
    """
    if enhancement is not None:
        expected = replace(Enhanced(enhancement).expected(plan, name), recipe=recipe, measured=True)
    else:
        anatomy = plan.anatomy
        maps = [p for p in anatomy.attention() if p.layer in set(layers)]
        expected = Expected(maps, rank, stored_bytes(anatomy.layers, anatomy.hidden_size, rank))
    return form_of(output.form).planned(plan, output, expected)


@dataclass(frozen=True)
class Enhanced:
    """An enhancement as the content of an output."""

    enhancement: Enhancement
    check: Check | None = None

    def require(self, plan: FolderPlan) -> None:
        anatomy = plan.anatomy
        self.enhancement.require(plan.checkpoint.fingerprint, anatomy.layers, anatomy.hidden_size)

    def expected(self, plan: FolderPlan, name: str) -> Expected:
        edited = self.enhancement.edited_layers()
        maps = [p for p in plan.anatomy.attention() if p.layer in edited]
        stored = len(self.enhancement.as_bytes())
        return Expected(maps, self.enhancement.rank, stored, self.enhancement, self.about(name))

    def about(self, name: str) -> dict[str, Any]:
        """What `burnish.json` says."""
        enhancement = self.enhancement
        return {
            "burnish": "enhanced",
            "base": name,
            "gains_asked": gains_asked(enhancement),
            "directions": [
                {"layer": d.layer, "scope": d.scope, "site": d.site, **asdict(d.provenance)}
                for d in enhancement.directions
            ],
            "check": self.check.as_dict() if self.check else None,
        }

    def tensor_edits(self, plan: FolderPlan) -> list[TensorEdit]:
        return tensor_edits(plan.checkpoint, plan.edits(self.enhancement))

    def adapter_layers(self, plan: FolderPlan) -> list[AdapterLayer]:
        return adapter_layers(plan, self.enhancement)

    def card(self, words: CardWords, base: dict[str, Any], gains: Sequence[LayerGain]) -> str:
        realised = [(g.layer, a, r) for g in gains for a, r in zip(g.asked, g.realised, strict=True)]
        check = self.check.as_dict() if self.check else None
        return model_card(self.enhancement, words=words, base=base, check=check, realised=realised)

    def write_beside(self, folder: Path, form: Form, job: Job) -> None:
        self.enhancement.save(folder / PLAN_FILE, overwrite=True)  # makes the sub-folder


def write(job: Job) -> Applied:
    """Writes a content in one of its forms; the source is never touched.

    Raises WrongModelError, QuantisedModelError, OutputExistsError, DiskFullError before anything is written.
    """
    form = form_of(job.output.form)
    form.require(job)
    form.planned(job.plan, job.output, replace(job.content.expected(job.plan, job.name), recipe=job.recipe))
    return form.write(job)


def apply(
    plan: FolderPlan,
    enhancement: Enhancement,
    output: OutputOptions,
    *,
    name: str,
    check: Check | None = None,
    copy: FolderCopy | None = None,
    progress: Progress | None = None,
    recipe: str | None = None,
) -> Applied:
    """Writes an enhancement. name: the base model as the user calls it; check: goes into the card; copy: of this model, started
    already; recipe: the command that makes it again. Raises what `write` raises.
    """
    return write(Job(plan, Enhanced(enhancement, check), output, name, copy, progress, recipe))


def export(
    enhancement: Enhancement,
    out: Path | str,
    *,
    form: FormName = "model",
    model: str | Path | None = None,
    overwrite: bool = False,
    check: Check | None = None,
    options: ModelOptions | None = None,
    progress: Progress | None = None,
    recipe: str | None = None,
) -> Applied:
    """Writes an enhancement as a model folder, a PEFT adapter, a plan file or for llama.cpp, as `burnish apply` does.

    Args:
        enhancement: what is written.
        out: the folder or file.
        form: which of these.
        model: the base model; by default the one the directions were found on.
        overwrite: replace what is at `out`.
        check: goes into the model card.
        options: how the base model is found and read.
        progress: told of every part that takes long.
        recipe: the command that makes it again.

    Returns:
        What was written: bytes, gains asked and realised, notes.

    Raises:
        InputError: the form does not fit the model or the path.
        WrongModelError: the enhancement is of another model.
        QuantisedModelError: weights of 4 or 8 bits cannot be edited in place.
        OutputExistsError: there is an output, and `overwrite` is off.
        DiskFullError: the output does not fit on the disk.
    """
    name = enhancement.provenance.model if model is None else str(model)
    output = OutputOptions(out=Path(out), form=form, overwrite=overwrite).of_model(name)
    plan = open_plan(name, options or ModelOptions(), enhancement=enhancement, form=output.form)
    return apply(plan, enhancement, output, name=name, check=check, progress=progress, recipe=recipe)


def adapter_layers(plan: FolderPlan, enhancement: Enhancement) -> list[AdapterLayer]:
    """From the stored weights, or through the loaded model where they are quantised."""
    try:
        return checkpoint_layers(plan.checkpoint, tensor_edits(plan.checkpoint, plan.edits(enhancement)))
    except QuantisedModelError:
        from burnish.model.loading import load_model
        from burnish.model.weights import network_layers

        network, _ = load_model(plan.folder, plan.options)
        return network_layers(network, plan.edits(enhancement))


def gains_asked(enhancement: Enhancement) -> list[list[float]]:
    """The gains as `burnish.json` has them."""
    return [[round(g, 9) for g in row] for row in enhancement.gains.tolist()]


def undoing(plan: FolderPlan, enhancement: Enhancement) -> Enhancement:
    """What takes an enhancement out of the folder that was written with it.

    Raises InputError for a folder that was not made with just this enhancement, or where a component is gone.
    """
    made = read_mark(plan.folder)
    prints = {d.get("fingerprint") for d in made.get("directions", ())}
    if made.get("gains_asked") != gains_asked(enhancement) or prints != {enhancement.provenance.fingerprint}:
        raise InputError(
            f"{plan.folder} was not written with this enhancement at this strength, so it cannot be taken out. Pass the folder twice: "
            "burnish apply OUT OUT --undo."
        )
    return enhancement.undone(plan.checkpoint.fingerprint)


def read_enhancement(path: Path, factor: float | None, layers: str) -> Enhancement:
    """A direction file with a factor, or an enhancement file (its gains times `factor`), or an output folder that holds one, or the
    hub's `owner/name[@revision]` that does, or a mix of them.

    Raises InputError, also for the output of a training, which is more than its enhancement; WrongModelError for a mix of two models;
    HubError, ModelNotFoundError.
    """
    mix = Mix.of_files(path)
    if mix is None:
        return _read_one(path, factor, layers)
    parts = {term.name: _read_one(Path(term.name), factor, layers).scaled(term.weight) for term in mix.terms}
    (first, joined), *others = parts.items()
    for name, part in others:
        one, other = joined.provenance, part.provenance
        if one.fingerprint != other.fingerprint:
            raise WrongModelError(
                f"'{first}' was made for {one.model} ({one.fingerprint[:12]}) and '{name}' for {other.model} ({other.fingerprint[:12]}): they "
                "cannot be added. Make both on the same model, weight for weight."
            )
        joined = joined.combined(part)
    return joined


def _read_one(path: Path, factor: float | None, layers: str) -> Enhancement:
    """What is no mix."""
    if factor is not None:
        checked_strength(factor)
    refuse_partial(path)
    path = enhancement_folder(path)
    if is_trained(path):
        raise InputError(
            f"{path} holds a trained LoRA beside its direction, and only the direction would be used here. Pass {path / PLAN_FILE} for "
            "that, the folder itself as the model if it is one, or make another strength with `burnish apply`."
        )
    path = path / PLAN_FILE if path.is_dir() else path
    if kind_of(path) == "direction":
        return Direction.load(path).enhancement(factor, layers=layers)
    if layers != "all":
        raise InputError(
            f"--layers {layers} chooses where a direction is strengthened, and {path} is an enhancement, whose layers are chosen. Leave it "
            "out, or pass the direction."
        )
    enhancement = Enhancement.load(path)
    return enhancement if factor is None else enhancement.scaled(factor)


def read_foreign_enhancement(
    path: Path, plan: FolderPlan, factor: float | None, layers: str, *, name: str
) -> Enhancement:
    """A control vector of repeng (.gguf) or vectors of steering-vectors, as directions of the plan's model with a factor.

    Raises InputError, ModelError, WrongModelError.
    """
    from burnish.artifacts.foreign import read_foreign

    direction = read_foreign(path).direction(
        path,
        plan.anatomy,
        model=name,
        fingerprint=plan.checkpoint.fingerprint,
        architecture=type(plan.network).__name__,
    )
    return direction.enhancement(factor, layers=layers)
