"""Models that were changed in known ways, for audits."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from burnish.artifacts.audit import Audit
from burnish.artifacts.direction import Enhancement
from burnish.inspecting import audit_folders
from burnish.options import ModelOptions, OutputOptions
from burnish.pipeline import apply, open_plan

FLOAT = ModelOptions(dtype="float32")
EVERY = pytest.mark.parametrize(
    "family", ["llama", "llama-biased", "kanana", "qwen3-non-square", "gpt2", "gemma2", "olmo2"]
)
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
WEIGHT = "model.layers.{}.self_attn.o_proj.weight"
MLP = "model.layers.1.mlp.down_proj.weight"
Tensors = dict[str, Tensor]


def write(folder: Path, enhancement: Enhancement, out: Path) -> Path:
    return apply(open_plan(folder, FLOAT), enhancement, OutputOptions(out=out), name=str(folder)).out


def altered(folder: Path, out: Path, change: Callable[[Tensors], None] = lambda tensors: None) -> Path:
    """A copy of a folder with a single weight file, some of whose tensors are changed."""
    shutil.copytree(folder, out)
    tensors = load_file(out / "model.safetensors")
    change(tensors)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def audited(base: Path, other: Path) -> Audit:
    return audit_folders(base, other, FLOAT)[0]


def noise(like: Tensor, seed: int = 0) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
