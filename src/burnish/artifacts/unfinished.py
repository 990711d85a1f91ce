"""The state of a long computation, kept so that a killed run goes on where it was."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from burnish.artifacts.cache import keep

TEXT = "state"  # metadata key


def write_unfinished(path: Path, tensors: dict[str, Tensor], text: str) -> None:
    """Replaces the state at a path of the cache: tensors by name, and whatever else as text. A cache that cannot be written is no reason
    to stop."""
    keep(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={TEXT: text}))


def read_unfinished(path: Path) -> tuple[dict[str, Tensor], str] | None:
    """The state kept at a path; None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {})[TEXT]  # noqa: SIM118
    except (SafetensorError, OSError, KeyError):
        return None
