"""Every option once: a frozen dataclass field is the Python argument, the flag, the recipe key and the docs row."""

import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from burnish.errors import InputError

Scope = Literal["single", "per-layer"]
Site = Literal["residual", "attention"]
Position = Literal["prompt", "answer"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Combine = Literal["plain", "keep", "protect"]
Targets = Literal["all", "attention"]

# The modules NAME_form of `burnish/forms` are the output forms; none is imported for their names.
_MODULES = [module.name for module in pkgutil.iter_modules([str(Path(__file__).with_name("forms"))])]
FORMS = tuple(sorted(m.removesuffix("_form").replace("_", "-") for m in _MODULES if m.endswith("_form")))
if TYPE_CHECKING:
    FormName = str
else:
    FormName = Literal[FORMS]

DEFAULT_INSTRUCTIONS = 95
DEFAULT_LAYER = "60%"
DEFAULT_FACTOR = 1.5
SHUFFLES = 40


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded."""

    dtype: Annotated[
        Dtype, "number type the model runs in; auto: the stored one, or float32 where this processor is slow in it"
    ] = "auto"
    device: Annotated[
        str,
        "cpu, cuda, cuda:1, mps, xpu; auto: an accelerator, else the CPU; spread: all accelerators, then memory, then disk",
    ] = "auto"
    tensor_parallel: Annotated[
        bool, "under torchrun: split every layer over the processes, for architectures that the library has a plan for"
    ] = False
    revision: Annotated[str | None, "branch, tag or commit on the hub"] = None
    attn_implementation: Annotated[str | None, "attention kernel, for example sdpa or eager"] = None
    trust_remote_code: Annotated[bool, "run Python code that comes with the model (off: never)"] = False


@dataclass(frozen=True)
class LayerOptions:
    """How a model larger than memory is run."""

    layer_by_layer: Annotated[
        bool | None,
        "run the model one layer at a time from disk; by default where its weights exceed the free memory",
    ] = None
    states_memory: Annotated[float, "GB of hidden states kept in memory; more go to a file in the temporary folder"] = (
        1.0
    )

    def __post_init__(self) -> None:
        if not self.states_memory >= 0:
            raise InputError(f"--states-memory {self.states_memory} is not a size. Pass 0 or more GB.")


@dataclass(frozen=True)
class FindOptions:
    """How a direction is found."""

    instructions: Annotated[int, "prompts used from each set; the rest is held out"] = DEFAULT_INSTRUCTIONS
    layer_idx: Annotated[str, "layer whose output gives the direction: a number from 0, or a share of the depth"] = (
        DEFAULT_LAYER
    )
    scope: Annotated[Scope, "one direction for every layer (published), or one for each layer"] = "single"
    site: Annotated[Site, "hidden state after the block (published), or what attention writes at that layer"] = (
        "residual"
    )
    position: Annotated[Position, "last prompt token (published), or the mean over the answer's tokens"] = "prompt"
    protect: Annotated[bool, "take out what general and protect prompts write, so that they stay where they are"] = (
        False
    )
    seed: Annotated[int, "seed of every random choice"] = 0
    force: Annotated[bool, "go on when the direction is not above its shuffled-label null"] = False

    def __post_init__(self) -> None:
        if self.instructions < 2:
            raise InputError(
                f"--instructions {self.instructions} is too few: a mean needs at least 2 prompts a set. Pass 8 or more."
            )


@dataclass(frozen=True)
class GainOptions:
    """How strongly, and in which layers."""

    enhancement_factor: Annotated[
        float | Literal["auto"],
        "with a contrast direction: how much its component grows: 1.5 (published) makes it 2.5 times; negative tones down; auto: "
        "directions and gains are learnt within a budget of damage",
    ] = "auto"
    layers: Annotated[str, "layers to edit: all, 60%.., 10..20, ..50%"] = "all"

    @property
    def auto(self) -> bool:
        """Whether the gains are chosen, and not set by hand."""
        return self.enhancement_factor == "auto"

    @property
    def factor(self) -> float:
        """The factor as a number. Raises InputError for auto and for one that is not finite or below -1."""
        if self.enhancement_factor == "auto":
            raise InputError("The factor auto means learnt directions (`burnish.learn`); a number is needed here.")
        return checked_factor(self.enhancement_factor)


@dataclass(frozen=True)
class OutputOptions:
    """Where and how results are written."""

    out: Annotated[Path, "output folder, or file for form enhancement and the gguf forms"]
    form: Annotated[FormName, "what is written"] = "model"
    overwrite: Annotated[bool, "replace what is at the output path"] = False

    def of_model(self, model: str | Path) -> "OutputOptions":
        """A `.gguf` output means form gguf where the model is a `.gguf` file as well. Raises InputError where it is not."""
        if self.form != "model" or self.out.suffix != ".gguf":
            return self
        if Path(model).suffix != ".gguf":
            raise InputError(
                f"{self.out} ends in .gguf, and '{model}' is not a .gguf file: only one can be edited into another. Pass the model's "
                ".gguf file, or an output folder."
            )
        return replace(self, form="gguf")


@dataclass(frozen=True)
class EvaluateOptions:
    """What an evaluation is measured on."""

    prompts: Annotated[int, "general and protect prompts in each half (tuning and report)"] = 32
    tokens: Annotated[int, "tokens of each answer generated"] = 32
    answer_tokens: Annotated[int, "longest part of reference and user answers that is scored"] = 96
    samples: Annotated[int, "held-out prompts of the domain answered in full for text statistics and side-by-side"] = 12
    sample_tokens: Annotated[int, "tokens of those answers"] = 96
    budget: Annotated[float, "nats per token on general prompts at which methods are compared"] = 0.02
    random_directions: Annotated[int, "random directions: half say what any edit shifts, half are the null"] = 12
    seed: Annotated[int, "seed of every random choice"] = 0

    def __post_init__(self) -> None:
        sizes = ("prompts", "tokens", "answer_tokens", "samples", "sample_tokens")
        _require_at_least(2, self, sizes, "is too few to measure on. Pass 8 or more.")
        if not self.budget > 0:
            raise InputError(f"--budget {self.budget} leaves no room for any change. Pass for example 0.02.")
        if self.random_directions < 4:
            raise InputError(f"--random-directions {self.random_directions} is too few for a null. Pass 4 or more.")


@dataclass(frozen=True)
class LearnOptions:
    """How directions and gains are learnt from a teacher."""

    budget: Annotated[float, "nats per token that everyday and protect prompts may move, on average"] = 0.03
    directions: Annotated[int, "directions a layer"] = 4
    layers: Annotated[str, "layers to edit: all, 60%.., 10..20, ..50%"] = "all"
    steps: Annotated[int, "steps of the optimiser"] = 16
    rows: Annotated[int, "answers of the speciality a step"] = 6
    everyday_rows: Annotated[int, "everyday answers a step"] = 4
    everyday_weight: Annotated[
        float, "of everyday answers against the speciality's; less: more effect, more damage"
    ] = 1.0
    guidance: Annotated[float, "1: as the teacher; above 1: beyond it"] = 1.0
    learning_rate: Annotated[float, "share of the standard step"] = 1.0
    prompts: Annotated[int, "questions that the teacher answers"] = 48
    tokens: Annotated[int, "tokens of each of its answers"] = 28
    everyday: Annotated[int, "everyday and protect prompts that are held while learning"] = 48
    everyday_tokens: Annotated[int, "tokens of the base model's answers to them"] = 24
    measured: Annotated[int, "everyday prompts that the strength is chosen on, and as many that it is reported on"] = 36
    reported: Annotated[int, "held-out prompts of the speciality that the effect is reported on"] = 12
    repetition: Annotated[
        float, "largest allowed rise of the share of repeated 4-grams in the speciality's answers"
    ] = 0.1
    seed: Annotated[int, "seed of every random choice"] = 0

    def __post_init__(self) -> None:
        if not self.budget > 0:
            raise InputError(f"--budget {self.budget} leaves no room for any change. Pass for example 0.03.")
        _require_at_least(1, self, ("directions", "steps", "rows", "everyday_rows"), "is too few. Pass 1 or more.")
        sizes = ("prompts", "tokens", "everyday", "everyday_tokens", "measured", "reported")
        _require_at_least(4, self, sizes, "is too few. Pass 8 or more.")
        if self.everyday_weight < 0 or not self.learning_rate > 0:
            raise InputError("--everyday-weight is 0 or more and --learning-rate above 0.")


@dataclass(frozen=True)
class TrainOptions:
    """How a LoRA is trained beside an enhancement."""

    epochs: Annotated[float, "times that the rows are seen, unless --steps says how often the weights move"] = 3.0
    steps: Annotated[int | None, "steps of the optimiser"] = None
    batch: Annotated[int, "rows a step, over all devices"] = 8
    rows_at_once: Annotated[int, "rows that a device holds at once; the rest of a step is accumulated"] = 4
    learning_rate: Annotated[float, "of the first step; it falls along a cosine"] = 2e-4
    rank: Annotated[int, "rank of the LoRA in each map"] = 8
    targets: Annotated[Targets, "maps that get a LoRA: every one in the blocks, or attention's output projections"] = (
        "all"
    )
    knowledge_share: Annotated[float, "share of knowledge rows among those seen, with --data and --knowledge"] = 0.5
    budget: Annotated[
        float | None,
        "nats per token that everyday prompts may move: a barrier while training (by default 0.05 for protect, none "
        "for the others)",
    ] = None
    barrier_prompts: Annotated[
        int, "everyday prompts that the barrier holds, and at most as many others that the result is measured on"
    ] = 48
    barrier_tokens: Annotated[int, "tokens of the base model's answers to them"] = 24
    held_out: Annotated[float, "share of the rows kept out to measure the loss on"] = 0.1
    check_every: Annotated[int, "steps between checkpoints, at which the held-out loss is measured"] = 20
    patience: Annotated[int, "such measurements without improvement before training stops; 0: never"] = 3
    preference_strength: Annotated[float, "beta of DPO, for preference rows"] = 0.1
    gradient_checkpointing: Annotated[bool, "recompute activations: less memory, a third more time"] = False
    seed: Annotated[int, "seed of every random choice"] = 0

    def __post_init__(self) -> None:
        sizes = ("batch", "rows_at_once", "rank", "barrier_prompts", "barrier_tokens", "check_every")
        _require_at_least(1, self, sizes, "is too few. Pass 1 or more.")
        if (self.steps is not None and self.steps < 1) or not self.epochs > 0:
            raise InputError("--steps and --epochs are above 0: without a step nothing is learnt.")
        for name in ("learning_rate", "preference_strength"):
            if not getattr(self, name) > 0:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)} is not above 0.")
        if self.budget is not None and not self.budget > 0:
            raise InputError(f"--budget {self.budget} leaves no room for any change. Pass for example 0.05.")
        if not 0 < self.knowledge_share < 1:
            raise InputError("--knowledge-share is between 0 and 1; with one kind of rows only, leave it out.")
        if not 0 <= self.held_out < 1 or self.patience < 0:
            raise InputError("--held-out is a share from 0 to below 1, and --patience 0 or more.")

    @property
    def device_rows(self) -> int:
        """Rows that a device holds at once: never more than a step has, and a step is made of whole parts."""
        return next(n for n in range(min(self.rows_at_once, self.batch), 0, -1) if self.batch % n == 0)


@dataclass(frozen=True)
class ExplainOptions:
    """How much an explanation reads."""

    answers: Annotated[int, "prompts answered by base and enhanced"] = 4
    tokens: Annotated[int, "tokens of those answers"] = 64
    answers_scored: Annotated[int, "good answers over which the effect is attributed to layers"] = 12
    answer_tokens: Annotated[int, "longest part of those answers that is used"] = 48
    doses: Annotated[int, "everyday prompts on which other strengths are measured; 0 leaves the dose curve out"] = 24
    skip_likenesses: Annotated[bool, "leave out packaged domains and style axes, which are found on the model once"] = (
        False
    )
    seed: Annotated[int, "seed of every random choice"] = 0

    def __post_init__(self) -> None:
        if self.answers < 0 or self.tokens < 1:
            raise InputError("--answers is 0 or more and --tokens 1 or more.")
        if self.doses and self.doses < 4:
            raise InputError("--doses is 0 or at least 4: the damage is a mean over that many prompts.")
        if self.answers_scored < 2 or self.answer_tokens < 2:
            raise InputError("--answers-scored and --answer-tokens are 2 or more: an effect is measured on them.")

    @property
    def measuring(self) -> EvaluateOptions:
        """The same sizes and seed, for what is shared with an evaluation."""
        return EvaluateOptions(
            prompts=max(self.doses, 4), answer_tokens=self.answer_tokens, tokens=self.answer_tokens, seed=self.seed
        )


@dataclass(frozen=True)
class ServeOptions:
    """What a server allows."""

    rows: Annotated[int, "requests that are decoded at once; each holds the keys and values of its text"] = 8
    waiting: Annotated[int, "requests that wait for a row; more are refused"] = 64
    per_person: Annotated[int, "requests that one person may have open at once; more are refused"] = 16
    tokens_limit: Annotated[int, "longest answer in tokens, also where a request names no length"] = 1024
    time_limit: Annotated[float, "seconds that a request may take, waiting included"] = 600.0
    body_limit: Annotated[int, "bytes of the largest request"] = 1_000_000
    grace: Annotated[float, "seconds that running requests have to finish when the server is stopped"] = 30.0

    def __post_init__(self) -> None:
        sizes = ("rows", "waiting", "per_person", "tokens_limit", "body_limit")
        _require_at_least(1, self, sizes, "lets no request in. Pass 1 or more.")
        if not self.time_limit > 0 or not self.grace >= 0:
            raise InputError("--time-limit is above 0 and --grace 0 or more: both are seconds.")


def _require_at_least(least: int, options: object, names: Iterable[str], why: str) -> None:
    """Raises InputError for an option that is smaller. why: what is wrong, and what to pass."""
    for name in names:
        if (value := getattr(options, name)) < least:
            raise InputError(f"--{name.replace('_', '-')} {value} {why}")


LARGEST_FACTOR = 1e6


def checked_strength(strength: float) -> float:
    """Raises InputError for a multiple of gains that is no number, or too large for any use."""
    if strength != strength or abs(strength) == float("inf"):
        raise InputError(f"The factor {strength} is not a number. Pass for example 1.5.")
    if abs(strength) > LARGEST_FACTOR:
        raise InputError(
            f"The factor {strength:g} is beyond every use. Pass at most {LARGEST_FACTOR:g}; for example 1.5."
        )
    return strength


def checked_factor(factor: float) -> float:
    """Raises InputError for a factor that is not finite or below -1 (which would flip the sign of the component)."""
    checked_strength(factor)
    if factor < -1:
        raise InputError(
            f"The factor {factor} is below -1 and would turn the component around. Pass -1 (remove) or more."
        )
    return factor
