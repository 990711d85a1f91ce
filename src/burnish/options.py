"""Every option once: a frozen dataclass field is the Python argument, the flag, the recipe key and the docs row."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from burnish.errors import InputError, LayerError

Scope = Literal["single", "per-layer"]
Site = Literal["residual", "attention"]
Position = Literal["prompt", "answer"]
Form = Literal["model", "adapter", "enhancement"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

DEFAULT_INSTRUCTIONS = 95
DEFAULT_LAYER = "60%"
DEFAULT_FACTOR = 1.5
SHUFFLES = 40


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded."""

    dtype: Annotated[Dtype, "number type the model runs in; auto is the checkpoint's own"] = "auto"
    device: Annotated[str, "device map: cpu, cuda, auto"] = "cpu"
    revision: Annotated[str | None, "branch, tag or commit on the hub"] = None
    attn_implementation: Annotated[str | None, "attention kernel, for example sdpa or eager"] = None
    trust_remote_code: Annotated[bool, "run Python code that comes with the model (off: never)"] = False


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
        float, "how much the component grows: 1.5 makes it 2.5 times; negative tones down"
    ] = DEFAULT_FACTOR
    layers: Annotated[str, "layers to edit: all, 60%.., 10..20, ..50%"] = "all"


@dataclass(frozen=True)
class OutputOptions:
    """Where and how results are written."""

    out: Annotated[Path, "output folder (or file, for form enhancement)"]
    form: Annotated[Form, "a full model, a PEFT adapter, or the small enhancement file"] = "model"
    overwrite: Annotated[bool, "replace what is at the output path"] = False


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
        for name in ("prompts", "tokens", "answer_tokens", "samples", "sample_tokens"):
            if getattr(self, name) < 2:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} {getattr(self, name)} is too few to measure on. Pass 8 or more.")
        if not self.budget > 0:
            raise InputError(f"--budget {self.budget} leaves no room for any change. Pass for example 0.02.")
        if self.random_directions < 4:
            raise InputError(f"--random-directions {self.random_directions} is too few for a null. Pass 4 or more.")


_LAYER = re.compile(r"^\s*(-?\d+(?:\.\d+)?)\s*(%?)\s*$")


def layer_index(text: str | int, layers: int) -> int:
    """'19' or '60%' -> a layer from 0 to layers - 1; shares count the layers: 60 % of 32 is layer 19.

    Raises LayerError for anything else.
    """
    match = _LAYER.match(str(text))
    if match is None or (not match[2] and "." in match[1]):
        raise LayerError(f"'{text}' is not a layer. Pass a number 0..{layers - 1} or a share such as 60%.")
    number = float(match[1])
    if match[2]:
        if not 0 <= number <= 100:
            raise LayerError(f"{text} is not a share of the depth. Pass 0% to 100%.")
        return min(int(number / 100 * layers), layers - 1)
    if not 0 <= number < layers:
        raise LayerError(
            f"Layer {text} does not exist: this model has layers 0-{layers - 1}. "
            f"Pass --layer-idx 0..{layers - 1} or a share such as 60%."
        )
    return int(number)


def layer_window(text: str, layers: int) -> range:
    """'all', '60%..', '10..20' or '..50%' -> the layers, both ends included. Raises LayerError."""
    if text.strip() == "all":
        return range(layers)
    start, dots, end = text.partition("..")
    if not dots:
        only = layer_index(text, layers)
        return range(only, only + 1)
    first = layer_index(start, layers) if start.strip() else 0
    last = layer_index(end, layers) if end.strip() else layers - 1
    if first > last:
        raise LayerError(f"The window {text} is empty: layer {first} is after layer {last}. Swap the two ends.")
    return range(first, last + 1)


def checked_factor(factor: float) -> float:
    """Raises InputError for a factor that is not finite or below -1 (which would flip the sign of the component)."""
    if factor != factor or factor in (float("inf"), float("-inf")):
        raise InputError(f"The factor {factor} is not a number. Pass for example 1.5.")
    if factor < -1:
        raise InputError(
            f"The factor {factor} is below -1 and would turn the component around. Pass -1 (remove) or more."
        )
    return factor
