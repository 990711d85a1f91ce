"""Models larger than memory: which commands' runs go layer by layer, and what that costs."""

from typing import TYPE_CHECKING

from burnish.cli import console
from burnish.options import FindOptions, LayerOptions, ModelOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from burnish.model.estimating import Cost
    from burnish.model.folder_plan import FolderPlan
    from burnish.model.layerwise import LayeredModel
    from burnish.prompts.contrast import Contrast


def by_layer(plan: "FolderPlan", loading: ModelOptions, layers: LayerOptions) -> bool:
    """As asked for, else whether the weights exceed the free memory, which is then said."""
    from burnish.model.device import free_memory, loaded_bytes

    if layers.layer_by_layer is not None or loading.tensor_parallel:
        return bool(layers.layer_by_layer)
    chosen = plan.choice.options
    size, free = loaded_bytes(plan.checkpoint, chosen.dtype), free_memory(chosen.device)
    if size > free:
        console.say(
            f"Note: the weights take {size / 1e9:.1f} GB and {free / 1e9:.1f} GB of memory are free: the model is run layer by layer "
            "(--no-layer-by-layer loads it all the same)."
        )
    return size > free


def open_layered(model: str, loading: ModelOptions, layers: LayerOptions) -> "LayeredModel":
    """The model without its weights."""
    from burnish.model.layerwise import load_layered

    with console.waiting(f"Opening {model} layer by layer"):
        return load_layered(model, loading, states_bytes=int(layers.states_memory * 1e9), tell=console.say)


def estimated(model: "LayeredModel", contrasts: "Sequence[Contrast]", finding: FindOptions) -> "Cost":
    """What finding costs layer by layer, for all contrasts together."""
    from burnish.finding import states_wanted
    from burnish.model.estimating import estimate

    return estimate(model, [states_wanted(model, contrast, finding) for contrast in contrasts])


def in_words(cost: "Cost") -> str:
    """The cost in words."""
    return (
        f"{cost.disk_bytes_read / 1e9:.1f} GB to read, {cost.states_bytes / 1e9:.2f} GB of states, {cost.peak_bytes / 1e9:.2f} GB of memory "
        "besides the program"
    )
