"""Taking protected components out of directions."""

import torch
from torch import Tensor

from burnish.maths.statistics import unit


def without(directions: Tensor, protected: Tensor) -> Tensor:
    """Takes the span of `protected` [layers, m, hidden] out of `directions` [layers, hidden], unit length again.

    With `protected` the mean (and leading components) of what attention writes on general prompts, those prompts stay
    where they are: a gain multiplies their component along the direction, which is now zero on average.
    """
    _left, values, right = torch.linalg.svd(protected.double(), full_matrices=False)  # right: [layers, m, hidden]
    components = right * (values > 1e-9 * values.amax(-1, keepdim=True))[..., None]
    vectors = directions.double()
    shares = torch.einsum("lmh,lh->lm", components, vectors)
    remaining = vectors - torch.einsum("lm,lmh->lh", shares, components)
    return unit(remaining)


def leading_components(states: Tensor, count: int) -> Tensor:
    """The mean and the first `count` principal components of `states` [layers, n, hidden] -> [layers, 1 + count, hidden]."""
    exact = states.double()
    mean = exact.mean(1, keepdim=True)
    _, _, right = torch.linalg.svd(exact - mean, full_matrices=False)
    return torch.cat([mean / mean.norm(dim=-1, keepdim=True).clamp_min(1e-30), right[:, :count]], dim=1)
