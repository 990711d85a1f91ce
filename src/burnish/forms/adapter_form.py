"""A PEFT adapter: a LoRA whose product is exactly the edit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from burnish.artifacts.card_words import CardWords
from burnish.forms.base import Applied, Expected, Form, Job, exact_gains, finish_folder, record_bytes

if TYPE_CHECKING:
    from burnish.model.folder_plan import FolderPlan

BIAS_NOTE = (
    "the projections have a bias, so the adapter stores edited biases (bias: lora_only). PEFT loads it; vLLM takes no biases: write "
    "--form model for it."
)


class AdapterForm(Form):
    name = "adapter"
    help = "a PEFT adapter"
    words = CardWords(
        opening="A LoRA adapter for `{base}`. It strengthens",
        undo="Remove the adapter. `burnish apply BASE enhancement.safetensors --enhancement-factor F` makes another strength from the "
        "enclosed plan.",
        trained="A LoRA adapter for `{base}`,",
        trained_undo="Remove the adapter.",
        library="peft",
    )
    marker = "adapter_config.json"
    beside = True
    trains = True

    def size(self, plan: FolderPlan, expected: Expected) -> int:
        from burnish.artifacts.adapter import adapter_bytes

        return adapter_bytes(expected.maps, expected.rank) + record_bytes(expected)

    def write(self, job: Job) -> Applied:
        from burnish.artifacts.adapter import write_adapter
        from burnish.artifacts.files import stored_size

        layers, enhancement, out = job.content.adapter_layers(job.plan), job.content.enhancement, job.output.out
        edited = [] if enhancement is None else enhancement.edited_layers()
        maps = [p for p in job.plan.anatomy.attention() if p.layer in edited]
        gains = () if enhancement is None else exact_gains(maps, enhancement)
        write_adapter(
            out,
            layers,
            job.content.about(job.name),
            lambda folder: finish_folder(job, self, folder, gains),
            base_model=job.base_model,
            overwrite=job.output.overwrite,
        )
        notes = (BIAS_NOTE,) if any(layer.bias is not None for layer in layers) else ()
        return Applied(out, self.name, stored_size(out), gains, job.plan.anatomy.coverage(), notes)


FORM = AdapterForm()
