"""How well a direction separates two sets of prompts, and how far that could be chance."""

import torch
from torch import Tensor


def unit(vectors: Tensor, dim: int = -1) -> Tensor:
    """Scales to unit length along `dim`. Raises ValueError for a vector of length 0 or not finite."""
    lengths = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    if not bool(torch.isfinite(lengths).all()) or bool((lengths == 0).any()):
        raise ValueError("a direction has length zero or is not finite: the two sets do not differ at some layer")
    scaled: Tensor = vectors / lengths
    return scaled


def auroc(positive: Tensor, negative: Tensor) -> Tensor:
    """Area under the ROC curve along the last dimension, ties counting one half (Mann-Whitney U / (n m)).

    positive: [..., n], negative: [..., m]; returns [...].
    """
    difference = positive.unsqueeze(-1) - negative.unsqueeze(-2)
    return ((difference > 0).double() + 0.5 * (difference == 0).double()).mean((-1, -2))


def d_prime(positive: Tensor, negative: Tensor) -> Tensor:
    """Distance of the means in pooled standard deviations along the last dimension; returns [...]."""
    pooled = ((positive.var(-1) + negative.var(-1)) / 2).sqrt()
    return (positive.mean(-1) - negative.mean(-1)) / pooled.clamp_min(torch.finfo(pooled.dtype).tiny)


def largest_share(directions: Tensor, count: int = 4) -> Tensor:
    """Share of the squared length carried by the `count` largest coordinates; directions [..., hidden]."""
    squares = directions.double() ** 2
    return squares.topk(min(count, squares.shape[-1]), dim=-1).values.sum(-1) / squares.sum(-1)


def effective_rank(directions: Tensor) -> float:
    """Exponential of the entropy of the normalised eigenvalues of the Gram matrix of `directions` [k, hidden]."""
    values = torch.linalg.eigvalsh(unit(directions.double()) @ unit(directions.double()).T).clamp_min(0)
    shares = values / values.sum()
    return float(torch.exp(-(shares * torch.where(shares > 0, shares, torch.ones_like(shares)).log()).sum()))
