"""The main job: find, choose gains, write, check. Each step is also a function of its own."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from burnish.artifacts.adapter import adapter_bytes, write_adapter
from burnish.artifacts.bake import MARK, LayerGain, TensorEdit, bake, tensor_edits
from burnish.artifacts.card import base_facts, model_card
from burnish.artifacts.direction import Direction, Enhancement, kind_of
from burnish.artifacts.files import check_output
from burnish.artifacts.verify import Verification, verify
from burnish.checking import Check
from burnish.errors import ModelError, NoDirectionError, WrongModelError
from burnish.model.planning import FolderPlan
from burnish.model.source import resolve
from burnish.options import ModelOptions, OutputOptions
from burnish.prompts import PromptSet

Progress = Callable[[str, int, int], None]
PLAN_FILE = "burnish/enhancement.safetensors"  # in a folder: servers take every .safetensors at the top for weights


@dataclass(frozen=True)
class Applied:
    """What was written."""

    out: Path
    form: str
    bytes: int
    gains: tuple[LayerGain, ...]
    coverage: str


@dataclass(frozen=True)
class WritePlan:
    """What would be written: the answer of --dry-run."""

    out: str
    form: str
    bytes: int
    tensors: int
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


def open_plan(model: str | Path, options: ModelOptions, *, again: bool = False) -> FolderPlan:
    """The model folder without its weights. Raises WrongModelError for one that was enhanced before, unless `again`."""
    plan = FolderPlan(resolve(model, revision=options.revision), options)
    if (plan.folder / MARK).exists() and not again:
        raise WrongModelError(
            f"{plan.folder} is already enhanced (it holds {MARK}): applying again would multiply the gains, (1 + a)^2. "
            "Pass the original model, or --force if that is what you want."
        )
    return plan


def write_plan(plan: FolderPlan, enhancement: Enhancement, output: OutputOptions) -> WritePlan:
    """Checks everything that can fail before writing: model, tensors, disk, output path."""
    edits = _edits(plan, enhancement)
    size = {
        "model": plan.checkpoint.bytes,
        "adapter": adapter_bytes(edits),
        "enhancement": 4 * (enhancement.vectors.numel() + enhancement.gains.numel()),
    }[output.form]
    check_output(output.out, size, overwrite=output.overwrite, resumable=output.form == "model")
    return WritePlan(
        str(output.out), output.form, size, len(edits), enhancement.edited_layers(), plan.anatomy.coverage()
    )


def apply(
    plan: FolderPlan,
    enhancement: Enhancement,
    output: OutputOptions,
    *,
    name: str,
    check: Check | None = None,
    progress: Progress | None = None,
) -> Applied:
    """Writes an enhancement in one of its forms; the source is never touched.

    Raises WrongModelError, QuantisedModelError, OutputExistsError, DiskFullError before anything is written.
    """
    planned = write_plan(plan, enhancement, output)
    if output.form == "enhancement":
        enhancement.save(output.out, overwrite=output.overwrite)
        return Applied(output.out, output.form, output.out.stat().st_size, (), planned.coverage)
    edits = _edits(plan, enhancement)
    about = about_enhancement(enhancement, name, check)
    card = plan.folder / "README.md"
    base = base_facts(name, card.read_text(encoding="utf-8") if card.exists() else None)

    def extras(folder: Path, gains: tuple[LayerGain, ...]) -> None:
        realised = [(g.layer, a, r) for g in gains for a, r in zip(g.asked, g.realised, strict=True)]
        text = model_card(
            enhancement, form=output.form, base=base, check=check.as_dict() if check else None, realised=realised
        )
        (folder / "README.md").unlink(missing_ok=True)
        (folder / "README.md").write_text(text, encoding="utf-8")
        enhancement.save(folder / PLAN_FILE, overwrite=True)  # makes the sub-folder

    if output.form == "model":
        done = bake(plan.checkpoint, output.out, edits, about, extras, overwrite=output.overwrite, progress=progress)
        return Applied(output.out, output.form, done.bytes, done.gains, planned.coverage)
    exact = tuple(
        LayerGain(e.name, e.projection.layer, gains, gains)
        for e in edits
        if not e.name.endswith(".bias") and (gains := enhancement.gains[e.projection.layer].tolist())
    )
    write_adapter(
        plan.checkpoint,
        output.out,
        edits,
        about,
        lambda folder: extras(folder, exact),
        base_model=str(plan.folder) if Path(name).exists() or "/" not in name else name,
        overwrite=output.overwrite,
    )
    return Applied(output.out, output.form, planned.bytes, exact, planned.coverage)


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
    """A direction file with a factor, or an enhancement file (its gains times `factor`), or an output folder that holds one.

    Raises InputError.
    """
    path = path / PLAN_FILE if path.is_dir() else path
    if kind_of(path) == "direction":
        return Direction.load(path).enhancement(factor, layers=layers)
    enhancement = Enhancement.load(path)
    return enhancement if factor is None else enhancement.scaled(factor)


def verify_folders(
    base: str | Path, other: str | Path, options: ModelOptions, *, progress: Progress | None = None
) -> Verification:
    """Recovers what an enhanced model folder changed against its base. Raises ModelError, VerificationError."""
    plan = FolderPlan(resolve(base, revision=options.revision), options)
    copy = FolderPlan(resolve(other), options)
    if plan.folder.resolve() == copy.folder.resolve():
        raise ModelError(
            "Both arguments are the same folder: there is nothing to compare. Pass the enhanced copy second."
        )
    return verify(
        plan.checkpoint, copy.checkpoint, plan.anatomy.attention(), scales=plan.norm_scales(), progress=progress
    )


def limited(prompts: PromptSet, count: int) -> PromptSet:
    """Every k-th prompt, so that a short check covers the whole set."""
    if len(prompts) <= count:
        return prompts
    step = len(prompts) / count
    return PromptSet(prompts.name, tuple(prompts.prompts[int(i * step)] for i in range(count)))


def _edits(plan: FolderPlan, enhancement: Enhancement) -> list[TensorEdit]:
    enhancement.require(plan.checkpoint.fingerprint, plan.anatomy.layers, plan.anatomy.hidden_size)
    return tensor_edits(plan.checkpoint, plan.edits(enhancement))
