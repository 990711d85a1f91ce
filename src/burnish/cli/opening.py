"""The model that a command runs."""

from typing import TYPE_CHECKING

from burnish.cli import console
from burnish.options import ModelOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from burnish.model.forecast import Forecast, Work
    from burnish.model.model import Model


def open_model(model: str, loading: ModelOptions) -> "Model":
    """Loads it, saying on which device and in which number type."""
    from burnish.model.model import load

    with console.waiting(f"Loading {model}"):
        return load(model, loading, tell=console.say)


def expected(model: str, loading: ModelOptions, work: "Callable[[Model], Work]", *, talk: bool = True) -> "Forecast":
    """What a command will take, before any weight is loaded, and said unless it is the command's answer.

    work: counts tokens on a model without weights.
    """
    from burnish.model.forecast import forecast
    from burnish.model.model import outline

    drawn = outline(model, loading)
    estimate = forecast(drawn, work(drawn), loading)
    if talk:
        console.say(f"Estimate: {estimate}.")
    return estimate
