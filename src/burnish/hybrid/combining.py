"""The ways to put an enhancement and a LoRA together.

`W` is a map of the model, `W + L (R W)` what the enhancement makes of it (`maths/gain.py`), `B A` the LoRA. Sources: Hu et al. 2021,
"LoRA", equation 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from burnish.anatomy import INPUT_NAMES, Anatomy, LinearMap
from burnish.artifacts.adapter import AdapterLayer
from burnish.artifacts.direction import Enhancement
from burnish.artifacts.lora import LoraAdapter
from burnish.errors import InputError
from burnish.model.live import norm_weight
from burnish.options import Combine

# Norms between the feed-forward network and the residual stream (Gemma 2 and 3, OLMo 2, EXAONE 4, GLM-4).
POST_MLP_NORMS = ("post_feedforward_layernorm", "post_mlp_layernorm")


def combine_of(combine: Combine | None, enhancement: Enhancement | None) -> Combine:
    """The way asked for: by default keep with an enhancement, plain without. Raises InputError where the two do not fit."""
    combine = combine or ("plain" if enhancement is None else "keep")
    if combine == "plain" and enhancement is not None:
        raise InputError("A plain LoRA takes no enhancement. Leave out --with, or pass --combine keep.")
    if combine == "keep" and enhancement is None:
        raise InputError("--combine keep needs an enhancement to combine with. Pass --with FILE.")
    return combine


def lora_modules(adapted: Any) -> dict[str, Any]:
    """PEFT's wrappers by the path of the map they wrap."""
    return {path: module for path, module in adapted.get_base_model().named_modules() if hasattr(module, "lora_A")}


def trained_factors(adapted: Any, name: str) -> LoraAdapter:
    """The LoRA of a PEFT model (adapter "default"), with the scale in B."""
    factors = {}
    for path, module in sorted(lora_modules(adapted).items()):
        a, b = (side["default"].weight.detach().float().cpu() for side in (module.lora_A, module.lora_B))
        factors[path] = a.clone(), b * module.scaling["default"]
    return LoraAdapter(name, factors)


@dataclass(frozen=True)
class Protection:
    """Keeps what the LoRA writes into the residual stream out of the protected directions: `V^T (B A) = 0`."""

    bases: Mapping[str, Tensor]  # by path of each map that writes there: orthonormal columns [hidden, k], float64

    @staticmethod
    def of(enhancement: Enhancement, anatomy: Anatomy, maps: Sequence[LinearMap], network: nn.Module) -> "Protection":
        """Protects the enhancement's directions in every map of `maps` that writes to the residual stream.

        Where a norm stands between (weight `D`), it is `V^T D (B A)` that stays zero.
        """
        norms = {p.path: p.post_norm for p in anatomy.projections}
        bases = {}
        for item in maps:
            if item.path not in norms and (
                item.outputs != anatomy.hidden_size or INPUT_NAMES.search(item.path.rsplit(".", 1)[-1])
            ):
                continue
            directions = enhancement.vectors[item.layer].double().T  # [hidden, k]
            norm = norms.get(item.path) or (None if item.path in norms else _post_mlp_norm(network, anatomy, item))
            if norm is not None:
                directions = norm_weight(network.get_submodule(norm), anatomy.hidden_size)[:, None] * directions
            bases[item.path] = torch.linalg.qr(directions).Q
        return Protection(bases)

    def outside(self, path: str, b: Tensor) -> Tensor:
        """`b` [outputs, r] without its part along the protected directions."""
        basis = self.bases.get(path)
        if basis is None:
            return b
        basis = basis.to(b.device)
        exact = b.double()
        return (exact - basis @ (basis.T @ exact)).to(b.dtype)

    @torch.no_grad()
    def apply(self, adapted: Any) -> None:
        """After each step of the optimiser: what it moved into the directions is taken out again."""
        for path, module in lora_modules(adapted).items():
            weight = module.lora_B["default"].weight
            weight.copy_(self.outside(path, weight))


def _post_mlp_norm(network: nn.Module, anatomy: Anatomy, item: LinearMap) -> str | None:
    block = f"{anatomy.stack}.{item.layer}"
    children = dict(network.get_submodule(block).named_children())
    return next((f"{block}.{name}" for name in POST_MLP_NORMS if name in children), None)


def scaled(lora: LoraAdapter, scale: float) -> LoraAdapter:
    """The same change, `scale` times as large."""
    return replace(lora, factors={path: (a, b * scale) for path, (a, b) in lora.factors.items()})


def total_layers(
    enhancement: Sequence[AdapterLayer], lora: LoraAdapter, maps: Mapping[str, LinearMap]
) -> list[AdapterLayer]:
    """The sum as one adapter, exactly: the factors side by side, the enhancement's first; ranks add up.

    enhancement: its factors, on the weights as they are; maps: by path, those that the LoRA changes.
    """
    layers = {layer.projection.path: layer for layer in enhancement}
    for path, (a, b) in lora.factors.items():
        layer = layers.get(path)
        layers[path] = (
            AdapterLayer(maps[path], a, b.contiguous(), None)
            if layer is None
            else replace(layer, a=torch.cat([layer.a, a]), b=torch.cat([layer.b, b], 1))
        )
    return [layers[path] for path in sorted(layers)]
