"""`burnish chat`: talk to a model, with an enhancement, or base and enhanced side by side."""

import io
import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.flags import Loading
from burnish.cli.inputs import Json, ModelName, With, WithFactor
from burnish.cli.opening import open_model
from burnish.errors import InputError
from burnish.options import ModelOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from burnish.artifacts.direction import Enhancement
    from burnish.model.model import Model


def chat(
    model: ModelName,
    *,
    enhancement: With = None,
    enhancement_factor: WithFactor = None,
    compare: Annotated[bool, Parameter(help="base and enhanced side by side", negative=())] = False,
    prompt: Annotated[list[str] | None, Parameter(help="ask this and stop; may be repeated")] = None,
    tokens: Annotated[int, Parameter(help="longest answer")] = 256,
    system: Annotated[str | None, Parameter(help="system prompt")] = None,
    loading: Loading = ModelOptions(),
    json: Json = False,
) -> None:
    """Chat, streamed; without --prompt each line of standard input is a question."""
    from burnish.pipeline import read_enhancement

    if tokens < 1:
        raise InputError(f"--tokens {tokens} leaves no room for an answer. Pass 1 or more.")
    if prompt and not all(question.strip() for question in prompt):
        raise InputError("--prompt is empty. Write a question, or leave it out to be asked for one.")
    if enhancement_factor is not None and enhancement is None:
        raise InputError("--strength scales an enhancement, and none is given. Pass --with FILE.")
    if compare and enhancement is None:
        raise InputError("--compare needs an enhancement to compare with. Pass --with FILE.")
    plan = read_enhancement(enhancement, enhancement_factor, "all") if enhancement else None
    loaded = open_model(model, loading)
    if plan is not None:
        plan.require(loaded.fingerprint, loaded.anatomy.layers, loaded.anatomy.hidden_size)
    rows: list[dict[str, Any]] = []
    for question in prompt or _questions():
        if json:
            answers = {kind: "".join(part) for kind, part in _streams(loaded, plan, compare, question, tokens, system)}
            rows.append({"prompt": question, **answers})
        elif compare:
            _side_by_side(loaded, plan, question, tokens, system)
        else:
            console.stderr.print(f"> {question}", style="bold", markup=False)
            for _, pieces in _streams(loaded, plan, False, question, tokens, system):
                for piece in pieces:
                    sys.stdout.write(piece)
                    sys.stdout.flush()
            sys.stdout.write("\n")
    if json:
        console.as_json(rows)


def _questions() -> "Iterator[str]":
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text are read as such a sign
    if sys.stdin.isatty():
        console.say("Ask anything; an empty line or Ctrl-D ends.")
    for line in sys.stdin:
        if not line.strip():
            return
        yield line.strip()


def _streams(
    model: "Model", plan: "Enhancement | None", compare: bool, question: str, tokens: int, system: str | None
) -> "Iterator[tuple[str, Iterator[str]]]":
    """(kind, pieces of text) of each answer asked for; an answer must be read before the next begins."""
    from burnish.model.streaming import stream

    if compare or plan is None:
        yield "base", stream(model, question, tokens=tokens, system=system)
    if plan is not None:
        with model.enhanced(plan):
            yield "enhanced", stream(model, question, tokens=tokens, system=system)


def _side_by_side(model: "Model", plan: "Enhancement | None", question: str, tokens: int, system: str | None) -> None:
    from rich.live import Live
    from rich.markup import escape
    from rich.table import Table

    texts = {"base": "", "enhanced": ""}

    def table() -> Table:
        drawn = Table(title=escape(question), expand=True, title_justify="left")
        drawn.add_column("base", ratio=1)
        drawn.add_column("enhanced", ratio=1)
        drawn.add_row(escape(texts["base"]), escape(texts["enhanced"]))
        return drawn

    with Live(table(), console=console.stdout, refresh_per_second=8) as live:
        for kind, pieces in _streams(model, plan, True, question, tokens, system):
            for piece in pieces:
                texts[kind] += piece
                live.update(table())
    console.stdout.print()
