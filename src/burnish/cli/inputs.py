"""Arguments shared by commands, and prompt sets from files or packaged domains."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from burnish.cli.console import say
from burnish.errors import InputError
from burnish.prompts.table_files import TABLES

if TYPE_CHECKING:
    from burnish.artifacts.direction import Enhancement
    from burnish.checking import Check
    from burnish.evaluation.judge import Judge
    from burnish.mix import Mix
    from burnish.model.model import Model
    from burnish.prompts import PromptSet
    from burnish.prompts.contrast import Contrast
    from burnish.steps import Progress

CHECK_PROMPTS = 24  # of the closing check

ROWS = f"{', '.join(TABLES)}, or hf://datasets/OWNER/NAME:SPLIT"  # of prompts, answers and pairs
PROMPT_FILES = f".txt, {ROWS}"

ModelName = Annotated[
    str, Parameter(help="hub id, local folder, .gguf file, or packaged name (see `burnish models list`)")
]
Json = Annotated[bool, Parameter(help="print one JSON document on stdout", negative=())]
Overwrite = Annotated[bool, Parameter(help="replace what is at the output path", negative=())]
Layers = Annotated[str, Parameter(help="layers to edit, for a direction file: all, 60%.., 10..20")]
DryRun = Annotated[bool, Parameter(help="print the plan and the bytes to be written, and stop", negative=())]

_WITH = Parameter(
    name="--with",
    help="direction or enhancement file, or a folder or hub id (owner/name[@revision]) with one; or a mix of them: '0.6 a.safetensors + 0.4 "
    "b.safetensors'",
)
With = Annotated[Path | None, _WITH]
WithRequired = Annotated[Path, _WITH]
WithFactor = Annotated[
    float | None,
    Parameter(
        alias="--strength",
        help="factor (direction), or times the gains of an enhancement: 0.5 to 1.5 is the usual range",
    ),
]


@dataclass(frozen=True)
class JudgeOptions:
    """A model that marks answers."""

    judge_url: Annotated[
        str | None, Parameter(help="base URL of an OpenAI-compatible endpoint whose model marks answers")
    ] = None
    judge_model: Annotated[str | None, Parameter(help="model name at that endpoint; the key is $BURNISH_JUDGE_KEY")] = (
        None
    )

    def judge(self) -> "Judge | None":
        """Raises InputError for half a judge, or one that cannot work."""
        from burnish.evaluation.judge import Judge

        if (self.judge_url is None) != (self.judge_model is None):
            raise InputError("A judge needs both --judge-url and --judge-model. Pass both, or neither.")
        if self.judge_url is None or self.judge_model is None:
            return None
        return Judge(self.judge_url, self.judge_model)


@Parameter(name="*")
@dataclass(frozen=True)
class PromptOptions:
    """Which prompts are contrasted."""

    enhance: Annotated[Path | None, Parameter(help=f"file of specialised prompts ({PROMPT_FILES})")] = None
    normal: Annotated[
        Path | None,
        Parameter(
            help=f"file of everyday prompts ({PROMPT_FILES}); by default the packaged general set of the same language"
        ),
    ] = None
    domain: Annotated[
        tuple[str, ...],
        Parameter(
            help="domain instead of files, packaged or your own (see `burnish domains list`), with weights: NAME=0.5, may be repeated, or a "
            "mix such as '0.6 creative-writing + 0.3 education'",
            negative=(),
        ),
    ] = ()

    def mix(self) -> "Mix | None":
        """The packaged domains and their weights; None for files. Raises InputError unless it is one or the other."""
        from burnish.mix import Mix

        if bool(self.domain) == (self.enhance is not None):
            raise InputError("Pass either --enhance FILE or --domain NAME (one of them): that is what gets stronger.")
        return Mix.of(self.domain) if self.domain else None


def read_contrasts(options: PromptOptions, position: str) -> "list[tuple[float, Contrast]]":
    """Each speciality's prompts and weight, read and checked before any model is touched. Raises InputError, PromptFileError."""
    mix = options.mix()
    if mix is None:
        return [(1.0, _read_contrast(options, position, None))]
    return [(term.weight, _read_contrast(options, position, term.name)) for term in mix.terms]


def read_contrast(options: PromptOptions, position: str) -> "Contrast":
    """The prompts of one speciality. Raises InputError for a mix, and as `read_contrasts`."""
    contrasts = read_contrasts(options, position)
    if len(contrasts) > 1 or contrasts[0][0] != 1:
        raise InputError("A direction is found for one domain, without a weight. Use `burnish enhance` for a mix.")
    return contrasts[0][1]


def _read_contrast(options: PromptOptions, position: str, name: str | None) -> "Contrast":
    from burnish.finding import check_sets
    from burnish.languages import language_of
    from burnish.prompts import read_prompts
    from burnish.prompts.contrast import Contrast
    from burnish.prompts.domains import load_domain, load_general, load_protect
    from burnish.prompts.lint import lint

    answers = position == "answer"
    held: PromptSet | None = None
    if name is not None:
        domain = load_domain(name)
        enhance = domain.references_tune if answers else domain.enhance
        held = domain.references_report if answers else domain.held_out
    else:
        assert options.enhance is not None
        enhance = read_prompts(options.enhance, answers=answers)
    general = load_general(language_of(enhance.texts))
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
    return Contrast(enhance, normal, (held, held_normal), spared)


def general_prompts(language: str) -> "PromptSet":
    """Held-out everyday and protect prompts for the closing check."""
    from burnish.prompts.domains import load_general, load_protect

    return load_general(language).held_out.joined(load_protect())


def closing_check(
    model: "Model",
    enhancement: "Enhancement",
    *,
    language: str = "en",
    progress: "Progress | None" = None,
) -> "Check":
    """What an enhancement disturbs on held-out everyday and protect prompts."""
    from burnish.checking import check

    return check(model, enhancement, general_prompts(language).spread(CHECK_PROMPTS), progress=progress)


def _without_answers(prompts: "PromptSet") -> "PromptSet":
    return replace(prompts.without_answers(), name=f"{prompts.name} (own answers)")
