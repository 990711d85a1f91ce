"""Checkpoints are read header by header; damaged and quantised ones are refused in words."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from burnish.artifacts.checkpoint import Checkpoint
from burnish.errors import ModelError, QuantisedModelError

NAME = "model.layers.0.self_attn.o_proj"


def stored(folder: Path, tensors: dict[str, torch.Tensor], file: str = "model.safetensors") -> Checkpoint:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / file)
    return Checkpoint(folder)


def test_a_wrapper_prefix_does_not_matter(tmp_path: Path) -> None:
    checkpoint = stored(tmp_path / "m", {f"language_model.{NAME}.weight": torch.zeros(4, 6)})
    assert checkpoint.match(f"model.language_model.{NAME[6:]}", "weight", (4, 6)) == f"language_model.{NAME}.weight"


def test_the_fingerprint_sees_names_types_and_bytes(tmp_path: Path) -> None:
    weights = {f"{NAME}.weight": torch.zeros(4, 6)}
    one = stored(tmp_path / "a", weights).fingerprint
    assert stored(tmp_path / "b", weights).fingerprint == one
    others = [
        {"other": torch.zeros(4, 6)},
        {f"{NAME}.weight": torch.zeros(4, 6).half()},
        {f"{NAME}.weight": torch.ones(4, 6)},
    ]
    assert len({stored(tmp_path / str(i), w).fingerprint for i, w in enumerate(others)} | {one}) == 4


@pytest.mark.parametrize(
    "tensors",
    [
        {f"{NAME}.weight": torch.zeros(12, 1, dtype=torch.uint8)},
        {f"{NAME}.qweight": torch.zeros(3, 6, dtype=torch.int32)},
    ],
)
def test_packed_weights_are_refused_with_both_ways_out_and_missing_ones_as_what_they_are(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(QuantisedModelError, match=r"--form adapter.*original"):
        stored(tmp_path / "m", tensors).match(NAME, "weight", (4, 6))
    with pytest.raises(ModelError, match="do not belong together"):
        stored(tmp_path / "other", {"other": torch.zeros(2)}).match(NAME, "weight", (4, 6))
