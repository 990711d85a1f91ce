"""From a plan to files: what `enhance`, `apply` and `burnish.export` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.artifacts.adapter import adapter_bytes, checkpoint_layers, write_adapter
from burnish.artifacts.bake import LayerGain, bake, check_editable, tensor_edits
from burnish.artifacts.card import base_facts, card_text, model_card
from burnish.artifacts.copying import copied_bytes, left_out
from burnish.artifacts.direction import Direction, Enhancement, kind_of, stored_bytes
from burnish.artifacts.files import MARK, PLAN_FILE, check_output, is_trained, overlapping, refuse_partial, stored_size
from burnish.artifacts.hub import enhancement_folder
from burnish.errors import InputError, NoDirectionError, OutputError, QuantisedModelError, WrongModelError
from burnish.model.folder_plan import FolderPlan
from burnish.model.packaged import public_name
from burnish.model.source import resolve
from burnish.options import Form, ModelOptions, OutputOptions
from burnish.steps import Progress

if TYPE_CHECKING:
    from burnish.anatomy import LinearMap, Projection
    from burnish.artifacts.adapter import AdapterLayer
    from burnish.artifacts.copying import FolderCopy
    from burnish.checking import Check
    from burnish.model.gguf_plan import GgufPlan

BESIDE: tuple[Form, ...] = ("adapter", "gguf-lora")  # forms that are loaded beside the base model
CARD_BYTES, RECORD_BYTES = 2000, 300  # of a card, and of what `burnish.json` says of a layer
ADAPTER_BIAS_NOTE = (
    "the projections have a bias, so the adapter stores edited biases (bias: lora_only). PEFT loads it; vLLM takes no biases: write "
    "--form model for it."
)


@dataclass(frozen=True)
class Applied:
    """What was written."""

    out: Path
    form: str
    bytes: int
    gains: tuple[LayerGain, ...]
    coverage: str
    notes: tuple[str, ...] = ()  # what the user should know


@dataclass(frozen=True)
class WritePlan:
    """What would be written: the answer of --dry-run."""

    out: str
    form: str
    bytes: int
    projections: int
    layers: list[int]
    coverage: str


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
    model: str | Path, options: ModelOptions, *, again: bool = False, enhancement: Enhancement | None = None
) -> FolderPlan:
    """The model folder without its weights.

    enhancement: one made on these very weights saves building the architecture. Raises WrongModelError for a folder that was
    enhanced before, unless `again`.
    """
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
) -> WritePlan:
    """Checks everything that can fail before writing: the layers' tensors, the disk, the output path.

    layers: those with a gain other than zero; enhancement: where it is known, its size is. Raises InputError, ModelError, QuantisedModelError, OutputError.
    """
    edited = [p for p in plan.anatomy.attention() if p.layer in set(layers)]
    if output.form in BESIDE and not edited:
        raise InputError(f"Every gain is zero: form {output.form} would do nothing. Pass a factor other than 0.")
    if output.form == "model":
        check_editable(plan.checkpoint, edited)
    layers_in_all, hidden = plan.anatomy.layers, plan.anatomy.hidden_size
    stored = len(enhancement.as_bytes()) if enhancement else stored_bytes(layers_in_all, hidden, rank)
    size = _size(plan, output.form, edited, rank, stored)
    if overlapping(plan.folder, output.out):
        raise OutputError(f"{output.out} is, holds or lies in the model's own folder {plan.folder}. Pass another path.")
    check_output(output.out, size, overwrite=output.overwrite, resumable=output.form == "model")
    return WritePlan(str(output.out), output.form, size, len(edited), sorted(layers), plan.anatomy.coverage())


def _size(plan: FolderPlan, form: Form, edited: Sequence[Projection], rank: int, stored: int) -> int:
    """The bytes that a form takes, before the gains are known. stored: of the enhancement's file."""
    records = stored + CARD_BYTES + RECORD_BYTES * len(edited)
    if form == "model":
        return copied_bytes(plan.folder) + records
    if form == "adapter":
        return adapter_bytes(edited, rank) + records
    if form == "enhancement":
        return stored
    from burnish.model.gguf_plan import expected_size

    return expected_size(plan.gguf or plan.folder, form, edited, rank)


def apply(
    plan: FolderPlan,
    enhancement: Enhancement,
    output: OutputOptions,
    *,
    name: str,
    check: Check | None = None,
    copy: FolderCopy | None = None,
    progress: Progress | None = None,
) -> Applied:
    """Writes an enhancement in one of its forms; the source is never touched.

    name: the base model as the user calls it; check: goes into the card; copy: of this model, started already. Raises
    WrongModelError, QuantisedModelError, OutputExistsError, DiskFullError before anything is written.
    """
    enhancement.require(plan.checkpoint.fingerprint, plan.anatomy.layers, plan.anatomy.hidden_size)
    if output.form in ("gguf", "gguf-lora"):
        from burnish.model.gguf_plan import GgufPlan

        return apply_gguf(
            GgufPlan.open(plan.gguf or plan.folder, enhancement, again=True), output, name=name, progress=progress
        )
    planned = write_plan(plan, output, enhancement.edited_layers(), rank=enhancement.rank, enhancement=enhancement)
    if output.form == "enhancement":
        enhancement.save(output.out, overwrite=output.overwrite)
        return Applied(output.out, output.form, output.out.stat().st_size, (), planned.coverage)
    about = about_enhancement(enhancement, name, check)
    base = base_facts(public_name(name), card_text(plan.folder))

    def extras(folder: Path, gains: tuple[LayerGain, ...]) -> None:
        realised = [(g.layer, a, r) for g in gains for a, r in zip(g.asked, g.realised, strict=True)]
        text = model_card(
            enhancement, form=output.form, base=base, check=check.as_dict() if check else None, realised=realised
        )
        (folder / "README.md").unlink(missing_ok=True)
        (folder / "README.md").write_text(text, encoding="utf-8")
        enhancement.save(folder / PLAN_FILE, overwrite=True)  # makes the sub-folder

    if output.form == "model":
        edits = tensor_edits(plan.checkpoint, plan.edits(enhancement))
        done = bake(
            plan.checkpoint, output.out, edits, about, extras, overwrite=output.overwrite, copy=copy, progress=progress
        )
        return Applied(output.out, output.form, done.bytes, done.gains, planned.coverage, left_out_notes(plan.folder))
    layers = adapter_layers(plan, enhancement)
    exact = tuple(_exact_gain(layer.projection, enhancement) for layer in layers)
    write_adapter(
        output.out,
        layers,
        about,
        lambda folder: extras(folder, exact),
        base_model=name if "/" in name and not Path(name).exists() else str(plan.folder),
        overwrite=output.overwrite,
    )
    notes = (ADAPTER_BIAS_NOTE,) if any(layer.bias is not None for layer in layers) else ()
    return Applied(output.out, output.form, stored_size(output.out), exact, planned.coverage, notes)


def left_out_notes(folder: Path) -> tuple[str, ...]:
    """What the user should know of files that a written model does without."""
    names = left_out(folder)
    if not names:
        return ()
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"{', '.join(names[:3])}{more} of the base model hold its weights in another form, without the edit: left out. Convert the output "
        "again where such a form is needed.",
    )


def plan_gguf(plan: GgufPlan, output: OutputOptions, *, name: str, measured: bool = True) -> WritePlan:
    """What would be written from a `.gguf` file, without converting it: form gguf or gguf-lora.

    measured: every edit is computed, so that the bytes are exact. Raises InputError, OutputError.
    """
    from burnish.artifacts.gguf_edit import edited_size
    from burnish.artifacts.gguf_lora import lora_gguf_bytes

    enhancement, mark = plan.enhancement, about_enhancement(plan.enhancement, name, None)
    if output.form == "gguf":
        size = edited_size(plan.file, plan.edits, mark=mark, measured=measured)
    elif plan.edits:
        size = lora_gguf_bytes(plan.file, plan.edits, mark)
    else:
        raise InputError("Every gain is zero: form gguf-lora would do nothing. Pass a factor other than 0.")
    if overlapping(plan.path, output.out):
        raise OutputError(f"{output.out} is the model's own file. Pass another path.")
    check_output(output.out, size, overwrite=output.overwrite)
    projections = sum(not item.is_bias for item in plan.edits)
    coverage = enhancement.anatomy.coverage()
    return WritePlan(str(output.out), output.form, size, projections, enhancement.edited_layers(), coverage)


def apply_gguf(plan: GgufPlan, output: OutputOptions, *, name: str, progress: Progress | None = None) -> Applied:
    """Writes form gguf (the edited file) or gguf-lora from a `.gguf` file. Raises what `plan_gguf` raises, before writing."""
    from burnish.artifacts.gguf_edit import types_note, write_gguf
    from burnish.artifacts.gguf_lora import BIAS_NOTE, write_lora_gguf

    planned = plan_gguf(plan, output, name=name, measured=False)
    mark = about_enhancement(plan.enhancement, name, None)
    notes = plan.notes
    gains: tuple[LayerGain, ...]
    if output.form == "gguf":
        stored = write_gguf(plan.file, output, plan.edits, mark, progress=progress)
        gains, notes = stored, (*notes, types_note(stored)) if stored else notes
    else:
        write_lora_gguf(plan.file, output, plan.edits, mark)
        gains = tuple(_exact_gain(item.projection, plan.enhancement) for item in plan.edits if not item.is_bias)
        notes += (BIAS_NOTE,) if any(item.is_bias for item in plan.edits) else ()
    return Applied(output.out, output.form, output.out.stat().st_size, gains, planned.coverage, notes)


def export(
    enhancement: Enhancement,
    out: Path | str,
    *,
    form: Form = "model",
    model: str | Path | None = None,
    overwrite: bool = False,
    check: Check | None = None,
    options: ModelOptions | None = None,
    progress: Progress | None = None,
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
    if output.form in ("gguf", "gguf-lora"):
        from burnish.model.gguf_plan import GgufPlan

        return apply_gguf(GgufPlan.open(name, enhancement), output, name=name, progress=progress)
    plan = open_plan(name, options or ModelOptions(), enhancement=enhancement)
    return apply(plan, enhancement, output, name=name, check=check, progress=progress)


def adapter_layers(plan: FolderPlan, enhancement: Enhancement) -> list[AdapterLayer]:
    """From the stored weights, or through the loaded model where they are quantised."""
    try:
        return checkpoint_layers(plan.checkpoint, tensor_edits(plan.checkpoint, plan.edits(enhancement)))
    except QuantisedModelError:
        from burnish.model.loading import load_model
        from burnish.model.weights import network_layers

        network, _ = load_model(plan.folder, plan.options)
        return network_layers(network, plan.edits(enhancement))


def _exact_gain(projection: Projection | LinearMap, enhancement: Enhancement) -> LayerGain:
    """An adapter is not rounded: what was asked is what it does."""
    gains = enhancement.gains[projection.layer].tolist()
    return LayerGain(f"{projection.path}.weight", projection.layer, gains, gains)


def about_enhancement(enhancement: Enhancement, name: str, check: Check | None) -> dict[str, Any]:
    """What `burnish.json` says of an output."""
    return {
        "burnish": "enhanced",
        "base": name,
        "gains_asked": [[round(g, 9) for g in row] for row in enhancement.gains.tolist()],
        "directions": [
            {"layer": d.layer, "scope": d.scope, "site": d.site, **asdict(d.provenance)} for d in enhancement.directions
        ],
        "check": check.as_dict() if check else None,
    }


def read_enhancement(path: Path, factor: float | None, layers: str) -> Enhancement:
    """A direction file with a factor, or an enhancement file (its gains times `factor`), or an output folder that holds one, or the
    hub's `owner/name[@revision]` that does.

    Raises InputError, also for the output of a training, which is more than its enhancement; HubError, ModelNotFoundError.
    """
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
