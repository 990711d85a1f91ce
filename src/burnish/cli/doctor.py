"""`burnish doctor`, `--version` and `--install-completion`: about Burnish itself and the machine it runs on."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from burnish import __version__
from burnish.cli import console
from burnish.cli.inputs import Json
from burnish.errors import InputError

if TYPE_CHECKING:
    import cyclopts


def doctor(*, json: Json = False) -> None:
    """Print what a bug report needs: versions, device, number types, caches, free disk. No secrets."""
    from burnish.model.diagnosis import diagnosis

    facts = diagnosis()
    lines = (f"{key.replace('_', ' ')}: {in_words(value)}" for key, value in facts.items())
    console.result(facts, lines, json=json)


def in_words(value: Any) -> str:
    """One line: a table's entries after each other, sizes in GB."""
    if isinstance(value, dict):
        return "; ".join(f"{key.replace('_', ' ')} {in_words(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int) and value > 10_000:
        return f"{value / 1e9:.1f} GB"
    return "-" if value is None else str(value)


def version(*, json: Json = False) -> None:
    """Print the version; with --json also those of Python and the libraries."""
    if not json:
        console.data(__version__)
        return
    from burnish.model.diagnosis import versions

    console.as_json(versions())


def completion(app: "cyclopts.App") -> Any:
    """The command that writes an app's completion for a shell."""

    def install(
        *,
        shell: Annotated[
            Literal["zsh", "bash", "fish", "powershell"] | None, Parameter(help="shell; by default the one you are in")
        ] = None,
    ) -> None:
        """Install completion of commands and flags for your shell."""
        from cyclopts.completion.detect import ShellDetectionError

        try:
            path = app.install_completion(shell=shell)
        except ShellDetectionError as error:
            raise InputError("Your shell could not be told. Pass --shell bash, zsh, fish or powershell.") from error
        console.data(f"Written: {path}")
        console.say("Open a new terminal, and Tab completes `burnish`.")

    return install
