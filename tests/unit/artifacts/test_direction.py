"""Laws of an enhancement's gains, and of its file."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from burnish.artifacts.direction import Direction, Enhancement
from burnish.artifacts.direction_file import HEADER, kind_of
from burnish.errors import InputError
from burnish.maths.symmetric import orthonormal_form, signs
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


def test_orthogonal_directions_are_taken_out_exactly() -> None:
    plan = enhancement(rank=2)
    forms = [orthonormal_form(rows, signs(2)) for rows in plan.vectors * 0.6]
    vectors, gains = torch.stack([v for v, _ in forms]), torch.stack([g for _, g in forms])
    undone = replace(plan, vectors=vectors, gains=gains).undone("of the edited weights")
    for basis, gain, back in zip(vectors.double(), gains.double(), undone.gains.double(), strict=True):
        edit, inverse = (
            torch.eye(basis.shape[1], dtype=torch.float64) + basis.T @ torch.diag(g) @ basis for g in (gain, back)
        )
        torch.testing.assert_close(inverse @ edit, torch.eye(len(edit), dtype=torch.float64), atol=1e-5, rtol=0)


def test_overlapping_directions_and_lost_ones_cannot_be_taken_out() -> None:
    with pytest.raises(InputError, match="overlap"):
        enhancement(rank=2).undone("x")
    with pytest.raises(InputError, match="gone"):
        enhancement(-1.0).undone("x")


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
