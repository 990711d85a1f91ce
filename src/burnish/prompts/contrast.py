"""The prompts that one direction is found with."""

from dataclasses import dataclass

from burnish.prompts.domains import Domain, load_general, load_protect
from burnish.prompts.prompt_files import PromptSet


@dataclass(frozen=True)
class Contrast:
    """Specialised prompts against everyday ones, or two ends of a style."""

    enhance: PromptSet
    normal: PromptSet
    held_out: tuple[PromptSet | None, PromptSet | None] = (
        None,
        None,
    )  # of both; without them part of a set is held out
    protect: PromptSet | None = None  # whose writes are taken out, where that is asked for


def domain_contrast(domain: Domain, normal: PromptSet | None = None, *, held_out: int | None = None) -> Contrast:
    """A domain's prompts against `normal`, by default the packaged everyday prompts of its language. held_out: of each, at most."""
    general = load_general(domain.language)
    everyday = (general.prompts, general.held_out) if normal is None else (normal, None)
    held = (None if s is None else s.spread(held_out or len(s)) for s in (domain.held_out, everyday[1]))
    return Contrast(domain.enhance, everyday[0], (next(held), next(held)), load_protect())
