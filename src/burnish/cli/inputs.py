"""Arguments shared by commands, and prompt sets from files or packaged domains."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from burnish.cli.console import say
from burnish.errors import InputError

if TYPE_CHECKING:
    from burnish.prompts import PromptSet

ModelName = Annotated[
    str, Parameter(help="hub id, local folder, .gguf file, or packaged name (see `burnish models list`)")
]
Json = Annotated[bool, Parameter(help="print one JSON document on stdout", negative=())]
DryRun = Annotated[bool, Parameter(help="print the plan and the bytes to be written, and stop", negative=())]

With = Annotated[Path | None, Parameter(name="--with", help="direction or enhancement file, or a folder with one")]
WithFactor = Annotated[float | None, Parameter(help="factor (direction) or multiplier (enhancement)")]


@Parameter(name="*")
@dataclass(frozen=True)
class PromptOptions:
    """Which prompts are contrasted."""

    enhance: Annotated[Path | None, Parameter(help="file of specialised prompts (.txt, .jsonl, .csv)")] = None
    normal: Annotated[
        Path | None,
        Parameter(help="file of everyday prompts; by default the packaged general set of the same language"),
    ] = None
    domain: Annotated[str | None, Parameter(help="a packaged domain instead of files (see `burnish domains list`)")] = (
        None
    )


@dataclass(frozen=True)
class Contrast:
    """The prompt sets of one run."""

    enhance: "PromptSet"
    normal: "PromptSet"
    held_out: "tuple[PromptSet | None, PromptSet | None]"
    general: "PromptSet"  # held-out general and protect prompts for the check
    protect: "PromptSet"  # left where they are with --protect


def read_contrast(options: PromptOptions, position: str) -> Contrast:
    """Reads and checks the prompts before any model is touched. Raises InputError, PromptFileError."""
    from burnish.finding import check_sets
    from burnish.prompts import read_prompts
    from burnish.prompts.domains import load_domain, load_general, load_protect
    from burnish.prompts.lint import hangul_share, lint

    if (options.domain is None) == (options.enhance is None):
        raise InputError("Pass either --enhance FILE or --domain NAME (one of them): that is what gets stronger.")
    answers = position == "answer"
    held: PromptSet | None = None
    if options.domain is not None:
        domain = load_domain(options.domain)
        enhance = domain.references_tune if answers else domain.enhance
        held = domain.references_report if answers else domain.held_out
    else:
        assert options.enhance is not None
        enhance = read_prompts(options.enhance, answers=answers)
    general = load_general("ko" if hangul_share(enhance) > 0.5 else "en")
    protect = load_protect()
    if options.normal is not None:
        normal, held_normal = read_prompts(options.normal), None
    elif answers:  # the contrast is the base model's own answers to the same prompts
        normal, held_normal = _without_answers(enhance), None if held is None else _without_answers(held)
    else:
        normal, held_normal = general.prompts, general.held_out
    check_sets(enhance, normal)
    for finding in lint(enhance, normal):
        say(f"Note: {finding}")
    spared = general.prompts.joined(protect) if answers else protect
    return Contrast(enhance, normal, (held, held_normal), general.held_out.joined(protect), spared)


def _without_answers(prompts: "PromptSet") -> "PromptSet":
    from burnish.prompts import Prompt, PromptSet

    return PromptSet(f"{prompts.name} (own answers)", tuple(Prompt(p.messages) for p in prompts.prompts))
