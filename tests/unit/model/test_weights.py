"""The weight that a map applies is read from what it does to the identity."""

import pytest
import torch
from torch import Tensor, nn

from burnish.errors import QuantisedModelError
from burnish.model import weights
from burnish.model.weights import applied_weight
from quantised import Packed


class Network(nn.Module):
    """One map at the path `map`, run in a number type."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.map, self.dtype = inner.to(dtype), dtype


class Buffers(nn.Module):
    """A map that holds no parameter at all, as GPTQ's and AWQ's."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("qweight", weight)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.qweight)


class Scaled(nn.Linear):
    """A map that applies more than its weight, as FP8's."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


class FixedSteps(nn.Linear):
    """A map that rounds its inputs to steps fixed in advance and cuts them off."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x / 0.003).round().clamp(-127, 127) * 0.003)


class CoarseSteps(nn.Linear):
    """The same with a range that holds the identity, whose rows and their halves fall on the same multiples."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x / 0.097).round().clamp(-127, 127) * 0.097)


class Normed(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.rms_norm(x, x.shape[-1:], eps=1e-6))


def random(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def linear(weight: Tensor, kind: type[nn.Linear] = nn.Linear, bias: Tensor | None = None) -> nn.Linear:
    module = kind(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        module.weight.copy_(weight)
        if bias is not None:
            module.bias.copy_(bias)
    return module.requires_grad_(False)


@pytest.mark.parametrize("rows", [1, 3, 7, 256])
def test_slabs_of_any_size_give_the_same_weight_with_and_without_parameters(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "IDENTITY_ROWS", rows)
    weight = random(5, 7)
    for module in (linear(weight), Buffers(weight)):
        assert torch.equal(applied_weight(Network(module), "map", 7), weight)


def test_packed_numbers_give_what_they_mean() -> None:
    packed = Packed(linear(random(5, 7)))
    torch.testing.assert_close(applied_weight(Network(packed), "map", 7), packed.qweight.float() * packed.scale)


def test_a_large_bias_costs_no_precision_and_is_put_back() -> None:
    weight, bias = random(5, 7).bfloat16() / 100, torch.full((5,), 1000.0)
    network = Network(linear(weight, bias=bias), torch.bfloat16)
    assert torch.equal(applied_weight(network, "map", 7), weight.float())
    assert torch.equal(network.map.bias, bias.bfloat16())  # type: ignore[arg-type, union-attr]


def test_a_bias_that_the_map_keeps_elsewhere_is_no_part_of_the_weight() -> None:
    class Hidden(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 4

    weight = random(5, 7)
    torch.testing.assert_close(applied_weight(Network(linear(weight, Hidden)), "map", 7), weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [FixedSteps, CoarseSteps, Normed])
def test_a_map_that_is_not_linear_is_refused_with_both_ways_out(kind: type[nn.Linear]) -> None:
    with pytest.raises(QuantisedModelError, match=r"'map' is not a linear map.*--form enhancement.*original"):
        applied_weight(Network(linear(random(5, 7), kind)), "map", 7)
