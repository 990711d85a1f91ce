"""What a bug report needs to say of a machine, without secrets: paths begin at `~`, and of the environment only settings are read."""

import os
import platform
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from burnish import __version__
from burnish.paths import cache_root, data_root

NEEDED = (
    "torch",
    "transformers",
    "accelerate",
    "safetensors",
    "huggingface-hub",
    "tokenizers",
    "numpy",
    "gguf",
    "cyclopts",
)
OPTIONAL = ("peft", "trl", "datasets", "bitsandbytes", "lm-eval", "vllm")
SETTINGS = (  # none of them holds a secret
    "BURNISH_CACHE",
    "BURNISH_DATA",
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HIP_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "TMPDIR",
)


def versions() -> dict[str, str | None]:
    """Of Burnish, Python and the libraries it stands on; None for an optional one that is not installed. Nothing is imported."""
    versions = {name: _version(name) for name in (*NEEDED, *OPTIONAL)}
    return {"burnish": __version__, "python": platform.python_version(), **versions}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def diagnosis() -> dict[str, Any]:
    """Versions, machine, device, number types, caches, free disk (bytes) and settings."""
    import psutil  # type: ignore[import-untyped]
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from burnish.model.device import accelerator, free_memory, is_fast

    device = accelerator() or "cpu"
    halves = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    caches = {"burnish": cache_root(), "hub": Path(HF_HUB_CACHE), "profiles": data_root()}
    places = {"here": Path.cwd(), "cache": cache_root(), "temporary": Path(tempfile.gettempdir())}
    return {
        "versions": versions(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "encoding": sys.stdout.encoding,
        "processor": {"name": processor_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "memory": {"total": psutil.virtual_memory().total, "free": psutil.virtual_memory().available},
        "device": {
            "chosen": device,
            "name": device_name(device),
            "count": torch.accelerator.device_count() if device != "cpu" else 0,
            "free_memory": free_memory(device),
            "fast": ["float32", *(name for name, dtype in halves.items() if is_fast(dtype, device))],
        },
        "caches": {name: {"path": shortened(path), "bytes": _size(path)} for name, path in caches.items()},
        "free_disk": {name: _free(path) for name, path in places.items()},
        "settings": {name: shortened(os.environ[name]) for name in SETTINGS if name in os.environ},
    }


def shortened(path: str | Path) -> str:
    """A path without the name of the user."""
    place, home = Path(path), Path.home()
    return str(Path("~", place.relative_to(home))) if place.is_relative_to(home) else str(path)


def processor_name() -> str:
    import torch

    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return str(known.get("cpu_name") or platform.processor() or platform.machine())


def device_name(device: str) -> str | None:
    import torch

    named = getattr(getattr(torch, device, None), "get_device_name", None)
    return str(named()) if named is not None else None


def _size(folder: Path) -> int:
    """Bytes of the files in a folder; links, of which the hub's cache is full, count nothing."""
    paths = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in paths if not path.is_symlink())


def _free(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
