"""Taking an edit out of weights that hold it."""

from collections.abc import Callable

import pytest
import torch

from burnish.errors import InputError
from burnish.maths.symmetric import orthonormal_form, signs
from burnish.model.model import Model
from conftest import random_enhancement

Models = Callable[..., Model]


def test_orthogonal_directions_are_taken_out_exactly(tiny_model: Models) -> None:
    plan = random_enhancement(tiny_model("llama"), 0.5, rank=2)
    forms = [orthonormal_form(rows, signs(2)) for rows in plan.vectors * 0.6]
    vectors, gains = torch.stack([v for v, _ in forms]), torch.stack([g for _, g in forms])
    plan = type(plan)(vectors, gains, plan.directions)
    undone = plan.undone("of the edited weights")
    for layer in range(len(vectors)):
        basis = vectors[layer].double()
        edit, back = (
            torch.eye(basis.shape[1], dtype=torch.float64) + basis.T @ torch.diag(g[layer].double()) @ basis
            for g in (gains, undone.gains)
        )
        torch.testing.assert_close(back @ edit, torch.eye(len(edit), dtype=torch.float64), atol=1e-5, rtol=0)


def test_overlapping_directions_and_lost_ones_are_refused(tiny_model: Models) -> None:
    with pytest.raises(InputError, match="overlap"):
        random_enhancement(tiny_model("llama"), 0.5, rank=2).undone("x")
    with pytest.raises(InputError, match="gone"):
        random_enhancement(tiny_model("llama"), -1.0).undone("x")
