"""The adapter form for llama.cpp: a LoRA in a GGUF file, loaded beside the model's own file with a scale for each request."""

import json
from collections.abc import Sequence
from typing import Any

from gguf import Keys
from torch import Tensor

from burnish.artifacts.files import written
from burnish.artifacts.gguf_edit import MARK, GgufEdit
from burnish.artifacts.gguf_file import GgufFile
from burnish.artifacts.gguf_write import Value, tensors_size, write_tensors
from burnish.maths.gain import adapter_factors
from burnish.options import OutputOptions


def write_lora_gguf(source: GgufFile, output: OutputOptions, edits: Sequence[GgufEdit], mark: dict[str, Any]) -> None:
    """Writes `NAME.lora_a` [k, inputs] and `NAME.lora_b` [hidden, k] of each projection, float32.

    llama.cpp adds `scale * alpha / k * B (A x)` to the projection's output, and alpha is k here: scale 1 is the enhancement
    itself, 0 the base model, 0.5 half of every gain. The factors come from this very file's weights, so that the product is exact
    for it. A bias is not strengthened: a LoRA has no term for it.
    Source: src/llama-adapter.cpp and `build_lora_mm` in src/llama-graph.cpp of llama.cpp.
    """
    tensors: dict[str, Tensor] = {}
    for item in edits:
        if not item.is_bias:
            a, b = adapter_factors(source.read(item.tensor.name), item.edit)
            tensors[f"{item.tensor.name}.lora_a"], tensors[f"{item.tensor.name}.lora_b"] = a, b
    with written(output.out, overwrite=output.overwrite) as partial:
        write_tensors(partial, _keys(source, edits, mark), tensors)


def lora_gguf_bytes(source: GgufFile, edits: Sequence[GgufEdit], mark: dict[str, Any]) -> int:
    """The size the file will have."""
    shapes: dict[str, tuple[int, int]] = {}
    for item in edits:
        if not item.is_bias:
            shapes[f"{item.tensor.name}.lora_a"] = (item.edit.rank, item.projection.inputs)
            shapes[f"{item.tensor.name}.lora_b"] = (item.projection.outputs, item.edit.rank)
    return tensors_size(_keys(source, edits, mark), shapes)


def _keys(source: GgufFile, edits: Sequence[GgufEdit], mark: dict[str, Any]) -> dict[str, Value]:
    return {
        Keys.General.ARCHITECTURE: source.architecture,
        Keys.General.TYPE: "adapter",
        Keys.General.NAME: "Burnish enhancement",
        Keys.Adapter.TYPE: "lora",
        Keys.Adapter.LORA_ALPHA: float(edits[0].edit.rank),
        MARK: json.dumps(mark, ensure_ascii=False, sort_keys=True),
    }
