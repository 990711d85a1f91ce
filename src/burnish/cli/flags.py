"""Turns an options dataclass into flags: the text in each field's Annotated is its help."""

import dataclasses
import typing
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from burnish import options as all_options
from burnish.forms import form_help


def flags(options: type[Any], group: str, **helps: str) -> Any:
    """`Annotated[options, ...]` for a cyclopts command: one flag a field, grouped. helps: other texts than the fields' own."""
    hints = typing.get_type_hints(options, include_extras=True)
    for item in dataclasses.fields(options):
        hint = hints[item.name]
        if typing.get_origin(hint) is Annotated:
            kind, text = typing.get_args(hint)[:2]
            if isinstance(text, str):
                alias = "-o" if item.name == "out" else None
                negative = None if kind == bool | None else ()  # where a flag can be left open, both answers are flags
                parameter = Parameter(help=helps.get(item.name, text), group=group, negative=negative, alias=alias)
                options.__annotations__[item.name] = Annotated[kind, parameter]
    return Annotated[options, Parameter(name="*", group=group)]


if TYPE_CHECKING:  # for those who read types, a group of flags is its dataclass
    Evaluating = all_options.EvaluateOptions
    Explaining = all_options.ExplainOptions
    Finding = all_options.FindOptions
    Gains = all_options.GainOptions
    Size = all_options.LayerOptions
    Loading = all_options.ModelOptions
    Output = all_options.OutputOptions
    Limits = all_options.ServeOptions
    Training = all_options.TrainOptions
else:
    Loading = flags(all_options.ModelOptions, "Model")
    Finding = flags(all_options.FindOptions, "Direction")
    Size = flags(all_options.LayerOptions, "Size")
    Output = flags(all_options.OutputOptions, "Output", form=form_help())
    Gains = flags(all_options.GainOptions, "Strength")
    Training = flags(all_options.TrainOptions, "Training")
    Evaluating = flags(all_options.EvaluateOptions, "Evaluation")
    Explaining = flags(all_options.ExplainOptions, "Explanation")
    Limits = flags(all_options.ServeOptions, "Limits")
