"""The small file of directions and gains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from burnish.artifacts.card_words import CardWords
from burnish.forms.base import Applied, Expected, Form, Job

if TYPE_CHECKING:
    from burnish.model.folder_plan import FolderPlan


class EnhancementForm(Form):
    name = "enhancement"
    help = "the small file of directions and gains"
    words = CardWords(
        opening="An enhancement for `{base}`: directions and gains, no weights. Applied to that model, it strengthens the attention output "
        "projections along",
        covered="this enhancement and to what it is applied to",
        use="`burnish chat BASE --with THIS` tries it, `burnish apply BASE THIS -o OUT` writes a model, `--form adapter` an adapter; THIS is "
        "this repository's name.",
        undo="Use the base model without it.",
        stored=False,
        library="burnish",
    )

    def plan_file(self, out: Path) -> Path:
        return out

    def hint(self, model: str, out: Path) -> str:
        return f"burnish chat {model} --with {out} --compare"

    def size(self, plan: FolderPlan, expected: Expected) -> int:
        return expected.plan_bytes

    def write(self, job: Job) -> Applied:
        out, enhancement = job.output.out, job.content.enhancement
        assert enhancement is not None
        enhancement.save(out, overwrite=job.output.overwrite, recipe=job.recipe)
        return Applied(out, self.name, out.stat().st_size, (), job.plan.anatomy.coverage())


FORM = EnhancementForm()
