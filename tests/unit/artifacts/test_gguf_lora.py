"""The LoRA in a GGUF file is exactly the edit, with the names, keys and shapes that llama.cpp asks for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader

from burnish.artifacts.gguf_edit import MARK
from burnish.forms.base import Applied
from burnish.maths.gain import edit_weight
from burnish.model.gguf_plan import GgufPlan
from burnish.pipeline import export
from gguf_files import HIDDEN, INPUTS, LAYERS, Kind, anatomy, enhancement, values, write_model


def write(source: Path, out: Path, gain: float = 0.5, **settings: object) -> Applied:
    return export(enhancement(gain, **settings), out, form="gguf-lora", model=source)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Kind.F32, Kind.Q4_1, Kind.Q6_K])
@pytest.mark.parametrize("rank", [1, 3])
def test_the_product_of_the_factors_is_the_change_of_the_files_own_weights(
    kind: Kind, rank: int, tmp_path: Path
) -> None:
    source = write_model(tmp_path / "a.gguf", kind)
    write(source, tmp_path / "l.gguf", rank=rank)
    for item in GgufPlan.open(source, enhancement(rank=rank)).edits:
        weight = values(source, item.tensor.name)
        a, b = (values(tmp_path / "l.gguf", f"{item.tensor.name}.lora_{side}") for side in "ab")
        torch.testing.assert_close(b @ a, edit_weight(weight, item.edit) - weight, rtol=1e-4, atol=1e-5)


def test_llama_cpps_conditions_hold(tmp_path: Path) -> None:
    """src/llama-adapter.cpp: `general.type`, the architecture, `adapter.type`, alpha, pairs of suffixes, and shapes."""
    source = write_model(tmp_path / "a.gguf")
    write(source, tmp_path / "l.gguf", rank=2)
    reader = GGUFReader(tmp_path / "l.gguf")
    keys = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert keys["general.type"] == "adapter"
    assert keys["general.architecture"] == "llama"
    assert keys["adapter.type"] == "lora"
    assert keys["adapter.lora.alpha"] == 2.0  # times the scale, over the rank: scale 1 is the enhancement
    assert "gains_asked" in keys[MARK]
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    assert shapes == {
        f"blk.{layer}.attn_output.weight.lora_{side}": [INPUTS, 2] if side == "a" else [2, HIDDEN]
        for layer in range(LAYERS)
        for side in "ab"
    }
    assert all(tensor.data.dtype == np.float32 for tensor in reader.tensors)


def test_a_bias_is_left_alone_and_that_is_said(tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.gguf", bias=True)
    applied = write(source, tmp_path / "l.gguf", shape=anatomy(bias=True))
    assert any("bias" in note for note in applied.notes)
    assert len(GGUFReader(tmp_path / "l.gguf").tensors) == 2 * LAYERS
