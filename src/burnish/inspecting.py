"""From two folders to what was done to the first: what `verify` and `audit` share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from burnish.artifacts.audit import Audit, audit
from burnish.artifacts.files import PLAN_FILE
from burnish.artifacts.matching import Matches, match
from burnish.artifacts.verify import Verification, verification
from burnish.errors import ModelError, WrongModelError
from burnish.model.folder_plan import FolderPlan
from burnish.model.source import resolve
from burnish.options import GainOptions, ModelOptions
from burnish.pipeline import read_enhancement
from burnish.steps import Progress

if TYPE_CHECKING:
    from torch import Tensor


def verify_folders(
    base: str | Path, other: str | Path, options: ModelOptions, *, progress: Progress | None = None
) -> Verification:
    """Recovers what an enhanced model folder changed against its base, from the weights alone.

    Args:
        base: the base model: a folder, hub id or packaged name.
        other: the enhanced folder.
        options: how both are read.
        progress: told of every part that takes long.

    Returns:
        The gains along all directions of every layer, and whether everything else is identical.

    Raises:
        ModelNotFoundError: there is no such model.
        ModelError: both are the same folder, or their shapes differ.
        QuantisedModelError: quantised weights cannot be compared.
        VerificationError: a file cannot be compared.
    """
    plan, copy = _pair(base, other, options)
    return verification(_audited(plan, copy, {}, progress)[0], copy.checkpoint)


def audit_folders(
    base: str | Path,
    other: str | Path,
    options: ModelOptions,
    *,
    known: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
) -> tuple[Audit, Matches]:
    """Finds out what was done to `base` to get `other`, and which known directions it goes along.

    known: vectors [layers, hidden] by name (`known_vectors`). An enhanced folder's own record is always compared as well.
    Raises ModelError, QuantisedModelError, VerificationError, WrongModelError for known directions of another shape.
    """
    return _audited(*_pair(base, other, options), known or {}, progress)


def _audited(
    plan: FolderPlan, copy: FolderPlan, known: Mapping[str, Tensor], progress: Progress | None
) -> tuple[Audit, Matches]:
    recorded = known_vectors(copy.folder / PLAN_FILE, "own record") if (copy.folder / PLAN_FILE).exists() else {}
    named = {**known, **recorded}
    anatomy = plan.anatomy
    for name, vectors in named.items():
        if tuple(vectors.shape) != (anatomy.layers, anatomy.hidden_size):
            raise WrongModelError(
                f"'{name}' was made for {vectors.shape[0]} layers, {vectors.shape[1]} wide, and the model has {anatomy.layers} layers, "
                f"{anatomy.hidden_size} wide. Pass directions that were found on this model."
            )
    result = audit(
        plan.checkpoint,
        copy.checkpoint,
        anatomy.attention(),
        scales=plan.norm_scales(),
        known=named,
        progress=progress,
    )
    return result, match(result, named, recorded=tuple(recorded))


def known_vectors(path: Path, name: str | None = None) -> dict[str, Tensor]:
    """The directions [layers, hidden] of a direction file, an enhancement file or an output folder, by name.

    name: by default the file's; each of several directions gets what it was found with behind it. Raises InputError.
    """
    enhancement = read_enhancement(path, None, GainOptions.layers)
    name = name or path.stem
    if enhancement.rank == 1:
        return {name: enhancement.vectors[:, 0]}
    sources = [f"{name}, {i + 1}: {d.provenance.enhance}" for i, d in enumerate(enhancement.directions)]
    return dict(zip(sources, enhancement.vectors.unbind(1), strict=True))


def _pair(base: str | Path, other: str | Path, options: ModelOptions) -> tuple[FolderPlan, FolderPlan]:
    """Two different folders to compare. Raises ModelError, ModelNotFoundError."""
    plan = FolderPlan(resolve(base, revision=options.revision), options)
    copy = FolderPlan(resolve(other), options)
    if plan.folder.resolve() == copy.folder.resolve():
        raise ModelError(
            "Both arguments are the same folder: there is nothing to compare. Pass the enhanced copy second."
        )
    return plan, copy
