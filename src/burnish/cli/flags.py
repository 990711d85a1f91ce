"""Turns an options dataclass into flags: the text in each field's Annotated is its help."""

import dataclasses
import typing
from typing import Annotated, Any

from cyclopts import Parameter


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
