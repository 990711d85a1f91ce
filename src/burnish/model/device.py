"""Which device a model runs on and in which number type, where the user leaves them open."""

import functools
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from burnish.artifacts.checkpoint import DTYPES, Checkpoint
from burnish.artifacts.files import read_table
from burnish.errors import BurnishWarning
from burnish.model.processes import launched
from burnish.options import ModelOptions

SPREAD = "spread"  # over all accelerators, then the memory, then the disk
ANY = (SPREAD, "auto")
HALVES = {torch.bfloat16: "bf16", torch.float16: "fp16"}
MACOS = (14, 0)  # the first whose Metal computes bfloat16
TRIED = 8  # side of the product that shows whether an accelerator computes


@dataclass(frozen=True)
class Choice:
    """Loading options with the device filled in, and the number type where the stored one is not computed in."""

    options: ModelOptions
    dtype: str  # computed in
    reason: str = ""

    def __str__(self) -> str:
        place = "all devices" if self.options.device in ANY else self.options.device
        return f"Running on {place} in {self.dtype}{f' ({self.reason})' if self.reason else ''}."


def choose(folder: Path, options: ModelOptions, *, in_blocks: bool = False) -> Choice:
    """The fastest device that there is, and float32 where the stored type is slow on it.

    Args:
        folder: of the model; its config and the headers of its weights are read.
        options: what they leave at auto is filled in, the rest stays.
        in_blocks: the model is run layer by layer, so that its weights need not fit.

    Raises ModelError for a damaged config or header.
    """
    config, checkpoint = read_table(folder / "config.json"), Checkpoint(folder)
    _ = checkpoint.tensors
    stored = _stored(config, checkpoint)
    name = str(stored).removeprefix("torch.")
    if options.device == "auto" and not options.tensor_parallel:  # which takes a device for each process itself
        options = replace(options, device=_device(checkpoint, options, in_blocks=in_blocks))
    device = options.device
    if options.dtype != "auto":
        return Choice(options, options.dtype)
    if "quantization_config" in config:
        return Choice(options, name, "quantised weights")
    if is_fast(stored, device):
        return Choice(options, name)
    free = free_memory(device)
    if not in_blocks and loaded_bytes(checkpoint, "auto") <= free < loaded_bytes(checkpoint, "float32"):
        return Choice(options, name, "slow on this processor, but float32 would not fit into the free memory")
    options = replace(options, dtype="float32")
    return Choice(options, "float32", f"stored in {name}, which this processor computes slowly")


def _device(checkpoint: Checkpoint, options: ModelOptions, *, in_blocks: bool) -> str:
    """An accelerator that computes; all devices where the weights do not fit into it; else the CPU."""
    kind = accelerator()
    if kind is None:
        return "cpu"
    fits = loaded_bytes(checkpoint, options.dtype) <= free_memory(kind)
    return kind if fits or in_blocks or launched().count > 1 else SPREAD


@functools.cache
def accelerator() -> str | None:
    """cuda (also for ROCm), mps, xpu or what else torch was built for, if it computes a small product; a broken one is warned of."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None:
        return None
    try:
        ones = torch.ones(TRIED, TRIED, device=accelerator)
        right = float((ones @ ones).sum()) == TRIED**3
        why = "it computes wrong numbers"
    except RuntimeError as error:
        right, why = False, str(error).strip().splitlines()[0].rstrip(".")
    if right:
        return str(accelerator.type)
    warnings.warn(
        f"The {accelerator.type} device of this machine cannot be used: {why}. The model runs on the CPU; check the driver, or pass --device.",
        BurnishWarning,
        stacklevel=2,
    )
    return None


def is_fast(dtype: torch.dtype, device: str) -> bool:
    """Whether a device computes a number type at full speed, as far as torch can tell: what it emulates is slower than float32."""
    if dtype not in HALVES:
        return True
    kind = accelerator() or "cpu" if device in ANY else torch.device(device).type
    if kind == "cpu":
        known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(known.get(f"{unit}_{HALVES[dtype]}", False) for unit in ("avx512", "amx"))
    if dtype == torch.float16:
        return True
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return kind != "mps" or torch.backends.mps.is_macos_or_newer(*MACOS)


def _stored(config: dict[str, Any], checkpoint: Checkpoint) -> torch.dtype:
    """What the library takes for "auto": the config's type, or that of the first floating point tensor."""
    text = config.get("text_config")
    for table in (config, text if isinstance(text, dict) else {}):
        stated = table.get("dtype", table.get("torch_dtype"))
        dtype = getattr(torch, stated, None) if isinstance(stated, str) else None
        if isinstance(dtype, torch.dtype):
            return dtype
    return next((DTYPES[t.dtype] for t in checkpoint.tensors.values() if t.dtype in DTYPES), torch.float32)


def free_memory(device: str) -> int:
    """Bytes that a model could take."""
    memory = int(psutil.virtual_memory().available)
    if device in ANY:
        kind = accelerator()
        return memory if kind is None else memory + sum(map(_free, _all_of(kind)))
    return _free(torch.device(device)) if torch.device(device).type != "cpu" else memory


def _all_of(kind: str) -> list[torch.device]:
    return [torch.device(kind, index) for index in range(torch.accelerator.device_count())]


def _free(device: torch.device) -> int:
    """Bytes free on an accelerator; those of the machine's own memory for one that torch does not tell of."""
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    told = getattr(getattr(torch, device.type), "mem_get_info", None)
    return int(psutil.virtual_memory().available if told is None else told(device)[0])


def loaded_bytes(checkpoint: Checkpoint, dtype: str) -> int:
    """What the weights take in memory, in a number type ("auto": as they are stored)."""
    sizes = [(t.end - t.start, DTYPES.get(t.dtype)) for t in checkpoint.tensors.values()]
    if dtype == "auto":
        return sum(size for size, _ in sizes)
    item = int(getattr(torch, dtype).itemsize)
    return sum(size if stored is None else size // stored.itemsize * item for size, stored in sizes)


def widest(device: torch.device) -> torch.dtype:
    """float64, or float32 where the device has no wider type (Metal)."""
    return torch.float32 if device.type == "mps" else torch.float64


def refusal(error: Exception) -> str | None:
    """What to tell of an error of a device, with what to do; None for any other error."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return (
            f"The memory of the device is full: {text} Nothing was put in place. Pass --device cpu where an accelerator is full, close "
            "other programs, or take smaller sizes (--dry-run says what is needed)."
        )
    if isinstance(error, getattr(torch, "AcceleratorError", ())) or "MPS" in text or "CUDA error" in text:
        return f"The device refused: {text} Nothing was put in place. Pass --device cpu, or --dtype float32."
    return None
