"""The model that a command runs."""

from typing import TYPE_CHECKING

from burnish.cli import console
from burnish.options import ModelOptions

if TYPE_CHECKING:
    from burnish.model.model import Model


def open_model(model: str, loading: ModelOptions) -> "Model":
    """Loads it, saying on which device and in which number type."""
    from burnish.model.model import load

    with console.waiting(f"Loading {model}"):
        return load(model, loading, tell=console.say)
