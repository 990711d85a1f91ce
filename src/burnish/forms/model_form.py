"""A full model: a copy of the checkpoint in which only the edited tensors differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from burnish.artifacts.card_words import CardWords
from burnish.forms.base import Applied, Expected, Form, Job, finish_folder, record_bytes

if TYPE_CHECKING:
    from burnish.model.folder_plan import FolderPlan


class ModelForm(Form):
    name = "model"
    help = "a full model"
    words = CardWords(
        opening="`{base}` with its attention output projections strengthened along",
        undo="Use the base model: the edit multiplied one component of each edited projection by 1 + gain, and nothing else differs\n"
        "(`burnish verify BASE THIS` recovers it). `burnish apply BASE enhancement.safetensors` makes this copy again.",
        trained="`{base}` with a LoRA merged into its weights,",
        trained_undo="Use the base model.",
        copies=True,
    )
    marker = "config.json"
    copies = True
    trains = True

    def hint(self, model: str, out: Path) -> str:
        return f"burnish verify {model} {out}"

    def check(self, plan: FolderPlan, expected: Expected) -> None:
        from burnish.artifacts.bake import check_editable

        check_editable(plan.checkpoint, expected.maps)

    def size(self, plan: FolderPlan, expected: Expected) -> int:
        from burnish.artifacts.copying import copied_bytes

        return copied_bytes(plan.folder) + record_bytes(expected)

    def write(self, job: Job) -> Applied:
        from burnish.artifacts.bake import bake

        done = bake(
            job.plan.checkpoint,
            job.output.out,
            job.content.tensor_edits(job.plan),
            job.content.about(job.name),
            lambda folder, gains: finish_folder(job, self, folder, gains),
            overwrite=job.output.overwrite,
            copy=job.copy,
            progress=job.progress,
        )
        notes = left_out_notes(job.plan.folder)
        return Applied(job.output.out, self.name, done.bytes, done.gains, job.plan.anatomy.coverage(), notes)


def left_out_notes(folder: Path) -> tuple[str, ...]:
    """What the user should know of files that a written model does without."""
    from burnish.artifacts.copying import left_out

    names = left_out(folder)
    if not names:
        return ()
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"{', '.join(names[:3])}{more} of the base model hold its weights in another form, without the edit: left out. Convert the output "
        "again where such a form is needed.",
    )


FORM = ModelForm()
