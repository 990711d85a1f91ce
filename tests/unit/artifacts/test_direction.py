"""Laws of an enhancement's gains."""

import torch

from gguf_files import anatomy, enhancement


def test_scaling_multiplies_every_gain_and_never_turns_a_component_around() -> None:
    plan = enhancement(shape=anatomy(layers=3))
    plan.gains[:, 0] = torch.tensor([0.8, -0.6, 0.0])
    assert torch.equal(plan.scaled(0.5).gains, 0.5 * plan.gains)
    torch.testing.assert_close(plan.scaled(2.0).gains[:, 0], torch.tensor([1.6, -1.0, 0.0]))
    assert torch.equal(plan.scaled(2.0).vectors, plan.vectors)
