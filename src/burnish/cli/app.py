"""The command table. Commands import what they need when they run, so that `--help` costs no torch."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import cyclopts

from burnish.cli import (
    apply,
    audit,
    bench,
    chat,
    doctor,
    domains,
    enhance,
    evaluate,
    explain,
    find,
    models,
    profile,
    pull,
    push,
    serve,
    train,
    verify,
)
from burnish.cli import run as recipes
from burnish.cli.console import long, say
from burnish.errors import BurnishError, InputError, ModelError, OutputError
from burnish.model.processes import joined, launched

INTERRUPTED = 130
SHARED = ("find", "enhance")  # commands that several processes work on together
OWN_WAY = ("train", "run")  # accelerate shares the rows of a training; a recipe's command is looked at in its turn

app = cyclopts.App(
    name="burnish",
    help="Bring out what a language model can already do: find a direction, strengthen it, measure what it cost.",
    version_flags=[],
    help_format="plaintext",
    config=recipes.remember,
    suppress_keyboard_interrupt=False,  # `run` says what became of the work
)
app.command(long(enhance.enhance))
app.command(long(find.find))
app.command(long(train.train))
app.command(long(apply.apply))
app.command(verify.verify)
app.command(long(audit.audit))
app.command(long(evaluate.evaluate))
app.command(long(explain.explain))
app.command(long(bench.bench))
app.command(long(chat.chat))
app.command(long(serve.serve))
app.command(push.push)
app.command(pull.pull)
app.command(recipes.run_recipe, name="run")
app.command(profile.app)
app.command(domains.app)
app.command(models.app)
app.command(doctor.doctor)
app.command(doctor.version, name="--version")
app.command(doctor.completion(app), name="--install-completion")

REMOVED = {
    "tune": "`burnish enhance` learns directions and gains, from --expert or --references for prompts of your own."
}


def run(arguments: Sequence[str]) -> int:
    """Runs a command line and returns its exit code."""
    try:
        _require_text(arguments)
        if arguments and (instead := REMOVED.get(arguments[0])):
            raise InputError(f"`burnish {arguments[0]}` was taken out: {instead}")
        with _together(arguments):
            result = app(list(arguments), exit_on_error=False, print_error=True, result_action="return_value")
    except cyclopts.CycloptsError:
        return 2
    except BurnishError as error:
        say(f"Error: {error}")
        return error.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        return refused(error)
    except (RuntimeError, MemoryError) as error:
        from burnish.model.device import refusal

        if (told := refusal(error)) is None:
            raise
        say(f"Error: {told}")
        return ModelError.exit_code
    except KeyboardInterrupt:
        say("Interrupted. Nothing was put in place; run the same command again to go on where a copy stopped.")
        return INTERRUPTED
    return result if isinstance(result, int) else 0


def refused(error: OSError) -> int:
    """Says what the system refused, and returns the exit code."""
    say(
        f"Error: The system refused: {error}. Check the path and its permissions, or free what is used up, and run the command again."
    )
    return OutputError.exit_code


def _require_text(arguments: Sequence[str]) -> None:
    """Raises InputError for an argument that is not in the terminal's encoding, or holds a null: no record or path could hold it."""
    for argument in arguments:
        if "\0" in argument:
            raise InputError(f"{argument[:200]!r} holds a null character. Leave it out.")
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{argument[:200]!r} holds bytes that are no UTF-8. Rename the file or folder, or write the text in UTF-8."
            ) from error


def _together(arguments: Sequence[str]) -> AbstractContextManager[object]:
    """Where a launcher started several processes, they work on one command. Raises InputError for one that cannot be shared."""
    command = next(iter(arguments), "")
    if launched().count == 1 or command in OWN_WAY:
        return nullcontext()
    if command not in SHARED:
        raise InputError(
            f"`burnish {command}` runs in one process, and this is one of {launched().count}: they would do the same work side by side. "
            f"Start it without torchrun; {' and '.join(SHARED)} share their prompts."
        )
    return joined()
