"""A baked model is an ordinary model to mergekit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from burnish.inspecting import verify_folders
from burnish.options import ModelOptions
from burnish.pipeline import export
from conftest import Folders, Models, random_enhancement

FLOAT = ModelOptions(dtype="float32")


@pytest.fixture
def merge() -> Callable[[dict[str, object], Path], None]:
    """merge(configuration, folder), as `mergekit-yaml CONFIG FOLDER`."""
    merging = pytest.importorskip("mergekit.merge", reason="mergekit is not installed")
    config = pytest.importorskip("mergekit.config").MergeConfiguration
    options = pytest.importorskip("mergekit.options").MergeOptions(copy_tokenizer=True, quiet=True)
    return lambda stated, out: merging.run_merge(config.model_validate(stated), str(out), options)


def test_a_baked_model_goes_through_unchanged_and_is_averaged(
    merge: Callable[[dict[str, object], Path], None],
    tiny_folder: Folders,
    tiny_model: Models,
    tmp_path: Path,
) -> None:
    base, baked = tiny_folder("llama"), tmp_path / "baked"
    export(random_enhancement(tiny_model("llama"), 0.5), baked, model=base, options=FLOAT)
    recipe = {"slices": [{"sources": [{"model": str(baked), "layer_range": [0, 3]}]}], "merge_method": "passthrough"}
    merge({**recipe, "dtype": "float32"}, tmp_path / "same")
    one, other = (load_file(folder / "model.safetensors") for folder in (baked, tmp_path / "same"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    halves = [{"model": str(folder), "parameters": {"weight": 0.5}} for folder in (base, baked)]
    merge({"models": halves, "merge_method": "linear", "dtype": "float32"}, tmp_path / "half")
    verification = verify_folders(base, tmp_path / "half", FLOAT)
    assert [layer.gains for layer in verification.edited] == [pytest.approx([0.25], abs=1e-4)] * 3
