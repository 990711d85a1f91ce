"""Laws of an enhancement's gains, and of its file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from burnish.artifacts.direction import Direction, Enhancement
from burnish.artifacts.direction_file import HEADER, kind_of
from burnish.errors import InputError
from gguf_files import anatomy, enhancement

Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], object]


def test_scaling_multiplies_every_gain_and_never_turns_a_component_around() -> None:
    plan = enhancement(shape=anatomy(layers=3))
    plan.gains[:, 0] = torch.tensor([0.8, -0.6, 0.0])
    assert torch.equal(plan.scaled(0.5).gains, 0.5 * plan.gains)
    torch.testing.assert_close(plan.scaled(2.0).gains[:, 0], torch.tensor([1.6, -1.0, 0.0]))
    assert torch.equal(plan.scaled(2.0).vectors, plan.vectors)


def test_the_bytes_of_an_enhancement_are_those_of_its_file(tmp_path: Path) -> None:
    for rank in (1, 2):
        plan = enhancement(shape=anatomy(layers=3), rank=rank)
        assert plan.save(tmp_path / "plan", overwrite=True).read_bytes() == plan.as_bytes()


def test_another_name_of_the_model_changes_nothing_else(tmp_path: Path) -> None:
    plan = enhancement(shape=anatomy(layers=3), rank=2)
    renamed = plan.renamed("owner/name")
    assert {d.provenance.model for d in renamed.directions} == {"owner/name"}
    assert renamed.renamed(plan.provenance.model).as_bytes() == plan.as_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda header, tensors: header.pop("kind"),
        lambda header, tensors: header.pop("format"),
        lambda header, tensors: header.pop("directions"),
        lambda header, tensors: header["directions"].clear(),
        lambda header, tensors: header["directions"].append("text"),
        lambda header, tensors: header["directions"][0]["provenance"].pop("fingerprint"),
        lambda header, tensors: header["directions"][0]["provenance"].update(hidden_size=7),
        lambda header, tensors: header["directions"][0]["anatomy"].update(projections=[{}]),
        lambda header, tensors: header["directions"][0].update(layer=99),
        lambda header, tensors: tensors.pop("gains"),
        lambda header, tensors: tensors.update(gains=torch.zeros(3)),
        lambda header, tensors: tensors.update(gains=torch.full((3, 1), torch.nan)),
        lambda header, tensors: tensors.update(vectors=torch.zeros(4, 4)),
        lambda header, tensors: tensors["vectors"].fill_(torch.inf),
    ],
)
def test_a_damaged_or_made_up_file_is_an_error_in_words(change: Change, tmp_path: Path) -> None:
    path = enhancement(shape=anatomy(layers=3)).save(tmp_path / "plan.safetensors")
    with safe_open(str(path), framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    Enhancement.load(path)
    change(header, tensors)
    save_file(tensors, path, metadata={HEADER: json.dumps(header)})
    with pytest.raises(InputError, match=r"plan\.safetensors"):
        Enhancement.load(path)


@pytest.mark.parametrize("header", ["{", "[]", "3"])
def test_a_header_that_is_no_table_is_an_error_in_words(header: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.safetensors"
    save_file({"gains": torch.zeros(1, 1)}, path, metadata={HEADER: header})
    for read in (kind_of, Enhancement.load, Direction.load):
        with pytest.raises(InputError, match=r"plan\.safetensors"):
            read(path)
