"""A symmetric edit in its free form and as orthonormal directions with gains."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.maths.gain import low_rank_edit
from burnish.maths.symmetric import REMOVED, orthonormal_form, shortened, signs


def drawn(k: int, hidden: int, seed: int) -> torch.Tensor:
    return torch.randn(k, hidden, generator=torch.Generator().manual_seed(seed))


@given(k=st.integers(1, 5), seed=st.integers(0, 50))
@settings(deadline=None)
def test_the_orthonormal_form_is_the_same_map_in_the_one_definition_of_an_edit(k: int, seed: int) -> None:
    rows, sign = drawn(k, 9, seed) / 3, signs(k)
    vectors, gains = orthonormal_form(rows, sign)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(k), atol=1e-5, rtol=0)
    edit = low_rank_edit(vectors.T, gains)
    torch.testing.assert_close(
        edit.left @ edit.right, rows.double().T * sign.double() @ rows.double(), atol=1e-5, rtol=1e-5
    )


def test_gains_fall_and_the_sign_of_a_direction_is_fixed() -> None:
    rows = drawn(4, 9, 0)
    vectors, gains = orthonormal_form(rows, signs(4))
    assert gains.tolist() == sorted(gains.tolist(), reverse=True)
    again, same = orthonormal_form(-rows.flip(0)[[1, 0, 3, 2]], signs(4))  # the same edit, written otherwise
    torch.testing.assert_close(again, vectors, atol=1e-5, rtol=0)
    torch.testing.assert_close(same, gains)


@given(k=st.integers(1, 6), seed=st.integers(0, 50), alike=st.booleans())
@settings(deadline=None)
def test_rows_that_turn_down_never_remove_a_component_together(k: int, seed: int, alike: bool) -> None:
    rows = 10 * drawn(k, 9, seed)
    rows = rows[:1].expand(k, -1) if alike else rows
    cut = shortened(rows[None], signs(k))[0]
    torch.testing.assert_close(cut[::2], rows[::2])
    downs = cut[1::2]
    if len(downs):
        _, gains = orthonormal_form(downs, -torch.ones(len(downs)))
        assert float(gains.min()) >= -REMOVED - 1e-5
    torch.testing.assert_close(shortened(cut / 20, signs(k)), cut / 20)
