"""Directions and LoRA together: what a direction cannot bring (new knowledge, a skill) by a short fine-tune that keeps or protects it."""

from importlib.util import find_spec

from burnish.errors import InputError


def require_trl() -> None:
    """Raises InputError when the libraries that train are not installed; none of them is imported."""
    missing = [name for name in ("trl", "peft", "datasets") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"Training needs trl, peft and datasets, and {missing[0]} is not installed. Run `pip install 'burnish[train]'`."
        )
