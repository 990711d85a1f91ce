"""The prompts that one direction is found with."""

from dataclasses import dataclass

from burnish.prompts.domains import Domain, load_general, load_protect
from burnish.prompts.prompt_files import PromptSet


@dataclass(frozen=True)
class Contrast:
    """Specialised prompts against everyday ones, or two ends of a style."""

    enhance: PromptSet
    normal: PromptSet
    # Of both; without them part of a set is held out.
    held_out: tuple[PromptSet | None, PromptSet | None] = (None, None)
    protect: PromptSet | None = None  # whose writes are taken out, where that is asked for


def domain_contrast(domain: Domain, *, held_out: int | None = None) -> Contrast:
    """A domain's prompts against the packaged everyday prompts of its language. held_out: of each, at most."""
    everyday = load_general(domain.language)
    held = (domain.held_out, everyday.held_out)
    if held_out is not None:
        held = (held[0].spread(held_out), held[1].spread(held_out))
    return Contrast(domain.enhance, everyday.prompts, held, load_protect())
