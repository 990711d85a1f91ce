"""The output forms, one module each: a module NAME_form with a `FORM` adds a form to every command."""

from functools import cache
from importlib import import_module

from burnish.forms.base import Form
from burnish.options import FORMS


@cache
def form_of(name: str) -> Form:
    """The form of a name among `options.FORMS`."""
    form: Form = import_module(f"burnish.forms.{name.replace('-', '_')}_form").FORM
    return form


def forms() -> list[Form]:
    """Every form, by name."""
    return [form_of(name) for name in FORMS]


def form_help(*, trained: bool = False) -> str:
    """The choices of --form in words. trained: those that can hold a trained LoRA."""
    return "; ".join(f"{form.name}: {form.help}" for form in forms() if form.trains or not trained)
