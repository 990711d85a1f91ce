"""Where a model's weights go: one device, several, the disk, or a part in each process."""

import warnings
from pathlib import Path
from typing import Any

import torch

from burnish.errors import BurnishWarning, ModelError
from burnish.model.device import SPREAD
from burnish.model.processes import keep_in_step, launched
from burnish.model.skeleton import skeleton, text_config
from burnish.options import ModelOptions


def placement(folder: Path, options: ModelOptions) -> dict[str, Any]:
    """Where the weights go, as arguments of the library. Raises ModelError for what does not go together."""
    if options.tensor_parallel:
        return _split_over(launched().count, folder, options)
    if options.device == SPREAD and launched().count > 1:
        raise ModelError(
            "With --device spread every process would spread the model over all devices. Start one process, or pass --device cuda, "
            "which gives each process a device of its own."
        )
    return {} if options.device == "cpu" else {"device_map": "auto" if options.device == SPREAD else options.device}


def _split_over(processes: int, folder: Path, options: ModelOptions) -> dict[str, Any]:
    """The same for a model of which every process holds a part; the library takes the machine's accelerators, or its CPUs."""
    if processes == 1:
        raise ModelError(
            "Tensor parallelism splits a model over processes, and this one is alone. Start it with "
            "`torchrun --nproc-per-node 2 -m burnish ...`, or use --device spread for several devices in one process."
        )
    if options.device not in ("auto", "cpu", "cuda"):
        raise ModelError(
            f"--device {options.device} says where whole layers go, and --tensor-parallel gives every process a part of them on a device of its "
            "own. Pass one of them."
        )
    network: Any
    network, config = skeleton(folder, options)
    if not network.supports_tp_plan:
        raise ModelError(
            f"The library has no plan for splitting the layers of '{config.model_type}' over processes: each would hold all of it. "
            "Leave out --tensor-parallel, so that each process reads a share of the prompts."
        )
    text = text_config(config)
    heads = [getattr(text, name, None) for name in ("num_attention_heads", "num_key_value_heads")]
    if any(count and count % processes for count in heads):
        raise ModelError(
            f"{' and '.join(str(count) for count in heads if count)} attention heads cannot be dealt out to {processes} processes evenly. Start "
            "as many processes as divide them, or leave out --tensor-parallel."
        )
    from transformers.distributed import DistributedConfig

    keep_in_step()
    return {"distributed_config": DistributedConfig(tp_plan="auto")}


def tell_offloaded(model: Any) -> None:
    """A model that does not fit runs all the same, slowly: that is said."""
    places = list(getattr(model, "hf_device_map", {}).values())
    if "disk" in places:
        warnings.warn(
            f"{places.count('disk')} of the model's {len(places)} parts do not fit into memory: every pass reads them from the disk again. "
            "Close other programs, or use --layer-by-layer, which reads each layer once for all prompts.",
            BurnishWarning,
            stacklevel=4,
        )


@torch.inference_mode()
def require_running(model: Any) -> None:
    """Runs one token through a model that was split: plans of the library that do not work fail here, in words. Raises ModelError."""
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    except RuntimeError as error:
        raise ModelError(
            f"The library's plan for splitting '{model.config.model_type}' does not work: {str(error).splitlines()[0]} "
            "Leave out --tensor-parallel, so that each process reads a share of the prompts."
        ) from error
