"""The edited `.gguf` file, for llama.cpp; and what the forms for llama.cpp have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.forms.base import Applied, Expected, Form, Job

if TYPE_CHECKING:
    from burnish.artifacts.bake import LayerGain
    from burnish.artifacts.direction import Enhancement
    from burnish.artifacts.gguf_edit import GgufEdit
    from burnish.artifacts.gguf_file import GgufFile
    from burnish.model.folder_plan import FolderPlan
    from burnish.model.gguf_plan import GgufPlan


class GgufForm(Form):
    """Made from the model's `.gguf` file itself."""

    converts = False

    def source(self, plan: FolderPlan) -> Path:
        return plan.gguf or plan.folder

    def opened(self, plan: FolderPlan, enhancement: Enhancement) -> GgufPlan:
        from burnish.model.gguf_plan import GgufPlan

        return GgufPlan.open(self.source(plan), enhancement, again=True)

    def require(self, job: Job) -> None:
        """Whose weights they are cannot be told from the file; what can be is checked by `size`."""

    def size(self, plan: FolderPlan, expected: Expected) -> int:
        from burnish.anatomy import Projection
        from burnish.model.gguf_plan import unknown_edits

        if expected.enhancement is None:
            projections = [item for item in expected.maps if isinstance(item, Projection)]
            file, edits = unknown_edits(self.source(plan), projections, expected.rank)
            return self.file_size(file, edits, {}, measured=False)
        gguf = self.opened(plan, expected.enhancement)
        return self.file_size(
            gguf.file, gguf.edits, record(expected.about or {}, expected.recipe), measured=expected.measured
        )

    def write(self, job: Job) -> Applied:
        assert job.content.enhancement is not None
        gguf = self.opened(job.plan, job.content.enhancement)
        gains, notes = self.write_file(gguf, job, record(job.content.about(job.name), job.recipe))
        out = job.output.out
        coverage = job.plan.anatomy.coverage()
        return Applied(out, self.name, out.stat().st_size, gains, coverage, (*gguf.notes, *notes))

    @abstractmethod
    def file_size(self, file: GgufFile, edits: Sequence[GgufEdit], mark: dict[str, Any], *, measured: bool) -> int:
        """The bytes of the output. measured: whether number types are chosen as they will be."""

    @abstractmethod
    def write_file(
        self, gguf: GgufPlan, job: Job, mark: dict[str, Any]
    ) -> tuple[tuple[LayerGain, ...], tuple[str, ...]]:
        """Writes the output; returns its gains and what the user should know."""


def record(about: dict[str, Any], recipe: str | None) -> dict[str, Any]:
    """What a file's key says. The check is left out: it is of the unquantised model."""
    return {**about, "check": None, **({} if recipe is None else {"recipe": recipe})}


class EditedFileForm(GgufForm):
    name = "gguf"
    help = "for llama.cpp, the edited .gguf file"

    def hint(self, model: str, out: Path) -> str:
        return f"llama-cli -m {out}"

    def file_size(self, file: GgufFile, edits: Sequence[GgufEdit], mark: dict[str, Any], *, measured: bool) -> int:
        from burnish.artifacts.gguf_edit import edited_size

        return edited_size(file, edits, mark=mark, measured=measured)

    def write_file(
        self, gguf: GgufPlan, job: Job, mark: dict[str, Any]
    ) -> tuple[tuple[LayerGain, ...], tuple[str, ...]]:
        from burnish.artifacts.gguf_edit import types_note, write_gguf

        gains = write_gguf(gguf.file, job.output, gguf.edits, mark, progress=job.progress)
        return gains, (types_note(gains),) if gains else ()


FORM = EditedFileForm()
