"""Burnish brings out what a language model can already do.

The public names are loaded when they are first used: importing the package costs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from burnish.artifacts.direction import Direction, Enhancement
    from burnish.artifacts.lora import read_lora
    from burnish.checking import check
    from burnish.evaluation.comparison import compare
    from burnish.evaluation.evaluating import evaluate
    from burnish.explaining.explaining import explain
    from burnish.explaining.page import render_page
    from burnish.finding import find_direction
    from burnish.hybrid.training import train
    from burnish.inspecting import verify_folders as verify
    from burnish.learning.learning import learn
    from burnish.learning.subject import Subject, expert_subject, subject_of
    from burnish.mix import Mix
    from burnish.model.layerwise import load_layered
    from burnish.model.model import Model, load
    from burnish.model.processes import joined
    from burnish.options import (
        EvaluateOptions,
        ExplainOptions,
        FindOptions,
        LearnOptions,
        ModelOptions,
        TrainOptions,
    )
    from burnish.pipeline import export
    from burnish.prompts import read_prompts
    from burnish.prompts.domains import load_domain, load_general, load_protect
    from burnish.pushing import pull, push

__all__ = [
    "Direction",
    "Enhancement",
    "EvaluateOptions",
    "ExplainOptions",
    "FindOptions",
    "LearnOptions",
    "Mix",
    "Model",
    "ModelOptions",
    "Subject",
    "TrainOptions",
    "check",
    "compare",
    "evaluate",
    "expert_subject",
    "explain",
    "export",
    "find_direction",
    "joined",
    "learn",
    "load",
    "load_domain",
    "load_general",
    "load_layered",
    "load_protect",
    "pull",
    "push",
    "read_lora",
    "read_prompts",
    "render_page",
    "subject_of",
    "train",
    "verify",
]

_HOMES = {
    "Direction": "artifacts.direction",
    "Enhancement": "artifacts.direction",
    "EvaluateOptions": "options",
    "ExplainOptions": "options",
    "FindOptions": "options",
    "LearnOptions": "options",
    "Mix": "mix",
    "Model": "model.model",
    "ModelOptions": "options",
    "Subject": "learning.subject",
    "TrainOptions": "options",
    "check": "checking",
    "compare": "evaluation.comparison",
    "evaluate": "evaluation.evaluating",
    "explain": "explaining.explaining",
    "expert_subject": "learning.subject",
    "export": "pipeline",
    "find_direction": "finding",
    "joined": "model.processes",
    "learn": "learning.learning",
    "load": "model.model",
    "load_domain": "prompts.domains",
    "load_general": "prompts.domains",
    "load_layered": "model.layerwise",
    "load_protect": "prompts.domains",
    "pull": "pushing",
    "push": "pushing",
    "read_lora": "artifacts.lora",
    "read_prompts": "prompts",
    "render_page": "explaining.page",
    "subject_of": "learning.subject",
    "train": "hybrid.training",
    "verify": "inspecting",
}
_INNER = {"verify": "verify_folders"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'burnish' has no attribute '{name}'")
    return getattr(import_module(f"burnish.{_HOMES[name]}"), _INNER.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
