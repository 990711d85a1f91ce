"""What the ways to choose directions and gains have in common; `burnish enhance` knows nothing else of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from burnish.artifacts.direction import Enhancement
    from burnish.checking import Check
    from burnish.model.forecast import Work
    from burnish.model.model import Model
    from burnish.prompts import PromptSet


class Method(Protocol):
    """One way, with its prompts read and checked; `run` fills in what it chose."""

    @property
    def rank(self) -> int:
        """Directions a layer."""

    @property
    def strength(self) -> str:
        """How strong the edit will be, in words."""

    @property
    def edits(self) -> bool:
        """Whether any gain is other than zero, as far as is known before."""

    @property
    def general(self) -> "PromptSet | None":
        """Prompts of the closing check; None where the method has measured its damage itself."""

    def work(self, model: "Model") -> "Work":
        """What it takes, in tokens. model: its outline."""

    def run(self, model: "Model", *, json: bool) -> "Enhancement":
        """Directions with their gains. Raises NoDirectionError, after telling why, where the model is better left alone."""

    @property
    def check(self) -> "Check | None":
        """Damage that the method has measured itself."""

    def summary(self) -> dict[str, Any]:
        """What was chosen, for --json."""

    def show(self) -> None:
        """The same for reading."""

    def write(self, model: "Model", folder: Path) -> None:
        """Numbers beside the enhancement in an output folder."""
