"""Other ways to the same teacher's effect, each scaled to the same damage as the learnt directions."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor

from burnish.finding import find_direction
from burnish.learning.descent import shares, turn
from burnish.learning.learning import lessons_for
from burnish.model.imitation import backward
from burnish.model.model import Model
from burnish.options import FindOptions, LearnOptions
from burnish.prompts.domains import load_domain, load_general

if TYPE_CHECKING:
    from learning import Material

ROUNDS = 5  # of the search for a strength
LORA_RATE = 1e-3  # Adam's step for rank 4: of 3e-4, 1e-3 and 3e-3 the one that lowers the loss most in as many steps
At = Callable[[float], AbstractContextManager[Any]]


def baseline_rows(material: "Material", name: str, options: LearnOptions, kl: float) -> dict[str, Any]:
    """A row for each way, at everyday damage `kl` in nats per token."""
    model = material.model
    ways: dict[str, tuple[At, float]] = {}
    direction = find_direction(
        model,
        enhance=load_domain(name).enhance,
        normal=load_general(material.subject.language).prompts,
        options=FindOptions(force=True),
    )
    published = direction.enhancement(1.0)
    ways["published: one direction, all layers"] = (lambda s: model.enhanced(published.scaled(s)), 0.5)
    ways["additive steering at one layer"] = (lambda s: steered(model, direction.vectors, direction.layer, s), 2.0)
    rows = {label: scaled_row(material, at, start, kl) for label, (at, start) in ways.items()}
    attention = [p.path.rpartition(".")[2] for p in model.anatomy.attention()]
    for label, targets in (
        ("LoRA of rank 4 on attention's output maps", sorted(set(attention))),
        ("LoRA of rank 4 on all maps", "all-linear"),
    ):
        with lora(model, material, options, targets) as at:
            rows[f"{label}, same teacher, tokens and everyday term"] = scaled_row(material, at, 1.0, kl)
    return rows


def scaled_row(material: "Material", at: At, scale: float, kl: float) -> dict[str, Any]:
    """The row of the strength at which everyday answers move by `kl`; damage grows about with the strength's square."""
    for _ in range(ROUNDS):
        moved = material.everyday_damage(lambda scale=scale: at(scale))  # type: ignore[misc]
        if abs(moved / kl - 1) < 0.05:
            break
        scale *= min(4.0, max(0.25, (kl / max(moved, 1e-6)) ** 0.5))
    return {**material.row(material.predicted(lambda: at(scale))), "scale": scale}


@contextmanager
def steered(model: Model, vectors: Tensor, layer: int, scale: float) -> Iterator[None]:
    """A multiple of a direction added to what a layer hands on. vectors: [layers, hidden]."""

    def add(module: torch.nn.Module, arguments: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        moved = first + scale * vectors[layer].to(first)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = model.network.get_submodule(f"{model.anatomy.stack}.{layer}").register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def lora(model: Model, material: "Material", options: LearnOptions, targets: list[str] | str) -> Iterator[At]:
    """Trains a LoRA on the lessons of learning (without own answers) for as many steps; hands over how to switch it on at a strength."""
    taught, everyday = lessons_for(model, [material.subject], options)
    torch.manual_seed(options.seed)
    adapted = get_peft_model(model.network, LoraConfig(r=4, lora_alpha=4, target_modules=targets))
    layers = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
    optimiser = torch.optim.Adam([p for p in adapted.parameters() if p.requires_grad], lr=LORA_RATE, betas=(0.9, 0.95))
    inner = replace(model, network=adapted.get_base_model())
    for number in range(options.steps):
        rows = turn(taught, options.rows, number, options.seed)
        calm = turn(everyday, options.everyday_rows, number, options.seed + 2)
        optimiser.zero_grad()
        backward(inner, [*rows, *calm], shares(rows, 1.0) + shares(calm, options.everyday_weight))
        optimiser.step()

    @contextmanager
    def at(scale: float) -> Iterator[None]:
        for layer in layers:
            layer.set_scale("default", scale)
        try:
            yield
        finally:
            for layer in layers:
                layer.set_scale("default", 0.0)

    with at(0.0):
        pass
    try:
        yield at
    finally:
        adapted.unload()
