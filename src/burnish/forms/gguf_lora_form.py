"""A LoRA in a GGUF file, which llama.cpp loads beside the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.forms.base import Job, exact_gains
from burnish.forms.gguf_form import GgufForm

if TYPE_CHECKING:
    from burnish.artifacts.bake import LayerGain
    from burnish.artifacts.gguf_edit import GgufEdit
    from burnish.artifacts.gguf_file import GgufFile
    from burnish.model.gguf_plan import GgufPlan

BIAS_NOTE = (
    "the projections have a bias, and a LoRA in a GGUF file cannot strengthen it: the effect differs from that of the other forms. "
    "Write --form gguf for the whole effect."
)


class GgufLoraForm(GgufForm):
    name = "gguf-lora"
    help = "for llama.cpp, a LoRA"
    beside = True

    def hint(self, model: str, out: Path) -> str:
        return f"llama-server -m {model} --lora {out}"

    def file_size(self, file: GgufFile, edits: Sequence[GgufEdit], mark: dict[str, Any], *, measured: bool) -> int:
        from burnish.artifacts.gguf_lora import lora_gguf_bytes

        return lora_gguf_bytes(file, edits, mark)

    def write_file(
        self, gguf: GgufPlan, job: Job, mark: dict[str, Any]
    ) -> tuple[tuple[LayerGain, ...], tuple[str, ...]]:
        from burnish.artifacts.gguf_lora import write_lora_gguf

        write_lora_gguf(gguf.file, job.output, gguf.edits, mark)
        weights = [item.projection for item in gguf.edits if not item.is_bias]
        return exact_gains(weights, gguf.enhancement), (BIAS_NOTE,) if len(weights) < len(gguf.edits) else ()


FORM = GgufLoraForm()
