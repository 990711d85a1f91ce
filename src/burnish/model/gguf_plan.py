"""A plan for a GGUF file: the edits of its tensors, without a model or a conversion."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from burnish.anatomy import Projection
from burnish.artifacts.checkpoint import Checkpoint
from burnish.artifacts.direction import Enhancement
from burnish.artifacts.gguf_edit import MARK, GgufEdit, gguf_edits
from burnish.artifacts.gguf_file import GgufFile, read_gguf
from burnish.artifacts.gguf_names import check_same_shape, norm_scale
from burnish.errors import InputError, ModelNotFoundError, WrongModelError
from burnish.maths.gain import LowRankEdit
from burnish.model.live import layer_edits
from burnish.model.packaged import converted_folder


@dataclass(frozen=True)
class GgufPlan:
    """A model's `.gguf` file and an enhancement of it."""

    path: Path
    enhancement: Enhancement

    @staticmethod
    def open(model: str | Path, enhancement: Enhancement, *, again: bool = False) -> "GgufPlan":
        """Checks everything that a file and a plan can say about each other.

        Layers, width, and names and shapes of every edited tensor must agree: ModelError or WrongModelError otherwise. What cannot
        be checked is in `notes`.
        Raises InputError for a model that is no `.gguf` file, WrongModelError for one enhanced before, unless `again`.
        """
        path = gguf_path(model)
        require_unedited(path, again=again)
        plan = GgufPlan(path, enhancement)
        check_same_shape(plan.file, enhancement.anatomy)
        _ = plan.edits
        return plan

    @cached_property
    def file(self) -> GgufFile:
        return read_gguf(self.path)

    @cached_property
    def edits(self) -> list[GgufEdit]:
        """The edit of each tensor that changes."""
        return gguf_edits(self.file, self._operators())

    def _operators(self) -> Iterator[tuple[Projection, LowRankEdit]]:
        return layer_edits(self.enhancement.anatomy, self.enhancement, lambda path: norm_scale(self.file, path))

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What the user should know: whether the weights are the plan's own is known only where this very file was converted for
        finding the direction."""
        provenance, folder = self.enhancement.provenance, converted_folder(self.path)
        if (folder / "config.json").exists() and Checkpoint(folder).fingerprint == provenance.fingerprint:
            return ()
        return (
            f"layers, width and shapes agree, but whether {self.path.name} has the weights that the direction was found on "
            f"({provenance.model}, {provenance.fingerprint[:12]}) cannot be told from the file. On a quantised copy of that model the "
            "direction holds; on another model's weights it means nothing.",
        )


def require_unedited(path: Path, *, again: bool) -> None:
    """Raises WrongModelError for a `.gguf` file that was enhanced before, unless `again`."""
    if not again and MARK in read_gguf(path).metadata:
        raise WrongModelError(
            f"{path} is already enhanced (it has the key {MARK}): applying again would multiply the gains, (1 + a)^2. "
            "Pass the original file, or --force if that is what you want."
        )


def unknown_edits(model: Path, projections: Sequence[Projection], rank: int) -> tuple[GgufFile, list[GgufEdit]]:
    """The file, and edits of those projections whose numbers are not known yet.

    Raises InputError for a model that is no `.gguf` file, ModelError for tensors that are not there.
    """
    file = read_gguf(gguf_path(model))
    edits = ((p, LowRankEdit(torch.zeros(p.outputs, rank), torch.zeros(rank, p.outputs))) for p in projections)
    return file, gguf_edits(file, edits)


def gguf_path(model: str | Path) -> Path:
    """A model's `.gguf` file. Raises InputError, ModelNotFoundError for anything else."""
    path = Path(model).expanduser()
    if path.suffix != ".gguf":
        raise InputError(
            f"'{model}' is not a .gguf file, and the forms for llama.cpp are made from the very file that they are for. Pass that file."
        )
    if not path.is_file():
        raise ModelNotFoundError(f"{path} does not exist. Check the path of the .gguf file.")
    return path
