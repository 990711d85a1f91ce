"""`burnish profile learn` and `choose`: what a profile learns from; and what all profile commands share."""

import json as json_module
import sys
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.flags import Loading
from burnish.cli.inputs import ROWS, Json, ModelName
from burnish.cli.opening import open_model
from burnish.errors import InputError
from burnish.options import ModelOptions

if TYPE_CHECKING:
    from burnish.artifacts.direction import Direction
    from burnish.model.model import Model
    from burnish.personal.pair_proposal import Comparison
    from burnish.personal.profile import Choice, Profile, Units
    from burnish.personal.store import Store
    from burnish.prompts import Prompt

Name = Annotated[str, Parameter(help="the profile's name")]
ANSWERS = {"1": 1.0, "2": 0.0, "0": 0.5}


def learn(
    name: Name,
    *,
    set_: Annotated[
        tuple[str, ...],
        Parameter(name="--set", help="NAME=VALUE for a domain or axis; 0 takes it back; repeatable", negative=()),
    ] = (),
    json: Json = False,
) -> None:
    """Set sliders by hand: how much of a domain or style axis, in standard deviations."""
    from burnish.personal.choice_update import relearned

    store, person = local()
    if not set_:
        raise InputError("Pass --set NAME=VALUE: that is what is learned from.")
    values = _sliders(store.profile(person, name), set_)

    def move(now: "Profile", choices: "list[Choice]") -> "Profile":
        sliders = {n: v for n, v in {**now.sliders, **values}.items() if v}
        return relearned(replace(now, sliders=sliders), choices)

    show_profile(store.update(person, name, "sliders", move), json=json)
    console.hint(f'burnish profile choose {quote(name)} smollm2-135m --prompt "How do I write a thank-you note?"')


def choose(
    name: Name,
    model: ModelName,
    *,
    pairs: Annotated[
        Path | None, Parameter(help=f"rows of prompt, chosen, rejected, or of prompt, draft, final ({ROWS})")
    ] = None,
    prompt: Annotated[
        tuple[str, ...], Parameter(help="two mixes answer this, and you choose; repeatable", negative=())
    ] = (),
    tokens: Annotated[int, Parameter(help="longest answer to a --prompt")] = 96,
    loading: Loading = ModelOptions(),
    json: Json = False,
) -> None:
    """Learn from choices: a file of pairs or of edited drafts, or answers of two mixes that are worth comparing."""
    from burnish.personal.choice_update import relearned

    store, person = local()
    profile = store.profile(person, name)
    if bool(prompt) == (pairs is not None):
        raise InputError("Pass either --pairs FILE or --prompt TEXT (one of them): that is what is chosen from.")
    rows = _read_pairs(pairs) if pairs is not None else []
    loaded = open_model(model, loading)
    reading, units = _reading(loaded, store, person, profile)
    if pairs is not None:
        from burnish.personal.pair_proposal import choices_of

        with console.progress() as progress:
            made = choices_of(loaded, reading, units, rows, progress)
        store.update(person, name, f"{len(made)} choices", relearned, made)
    for number, question in enumerate(prompt):
        answers = _compare(loaded, store, person, name, question, reading, units, tokens)
        outcome = _asked(answers)
        if outcome is None:
            console.say(f"Nothing chosen; prompts left out: {len(prompt) - number}.")
            break
        store.update(person, name, "1 choice", relearned, [answers.chosen(outcome)])
    show_profile(store.profile(person, name), json=json)
    console.hint(f"burnish profile export {quote(name)} {model} -o OUT --form adapter")


def local() -> "tuple[Store, str]":
    from burnish.personal.store import Store

    store = Store()
    return store, store.local()


def answer_to(question: str) -> str:
    """One line of standard input; empty at its end."""
    console.say(question)
    return sys.stdin.readline().strip()


def summary_of(profile: "Profile") -> dict[str, Any]:
    from burnish.personal.profile import describe

    return {"says": describe(profile), **json_module.loads(profile.as_json())}


def show_profile(profile: "Profile", *, json: bool) -> None:
    from burnish.personal.profile import describe

    lines = [f"{profile.name} ({profile.language}, budget {profile.budget:g} nats per token): {describe(profile)}"]
    for name, coefficient in sorted(profile.coefficients.items(), key=lambda item: -abs(item[1].mean)):
        sure = "" if coefficient.sure else "  (not sure)"
        deviation = f" +- {coefficient.deviation:.2f}" if coefficient.deviation else ""
        lines.append(f"  {name:26} {coefficient.mean:+.2f}{deviation}  from {coefficient.source}{sure}")
    console.result(summary_of(profile), lines, json=json)


def _sliders(profile: "Profile", entries: tuple[str, ...]) -> dict[str, float]:
    """NAME=VALUE entries. Raises InputError."""
    from burnish.personal.profile import checked_names

    sliders: dict[str, float] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        try:
            sliders[name.strip()] = float(value)
        except ValueError:
            raise InputError(f"'{entry}' is not NAME=VALUE. Pass for example --set formal-casual=-0.3.") from None
    checked_names(profile, sliders)
    return sliders


def _read_pairs(path: Path) -> "list[Prompt]":
    """Raises InputError for a row without two answers that differ."""
    from burnish.prompts import read_prompts

    rows = list(read_prompts(path).prompts)
    for number, row in enumerate(rows, 1):
        if row.answer is None or row.rejected is None:
            missing = "chosen" if row.answer is None else "rejected"
            raise InputError(
                f"{path}, row {number} has no {missing} answer, so nothing was chosen. Write rows such as "
                '{"prompt": "...", "chosen": "...", "rejected": "..."}, or with "final" and "draft".'
            )
        if row.answer.strip() == row.rejected.strip():
            raise InputError(
                f"{path}, row {number} has the same answer twice, so nothing was chosen. Leave the row out."
            )
    return rows


def _reading(model: "Model", store: "Store", person: str, profile: "Profile") -> "tuple[dict[str, Direction], Units]":
    """The directions of the features and their units, measured once a model."""
    from burnish.catalogue import named_directions, names_in
    from burnish.personal.pair_proposal import known_units

    with console.progress() as progress:
        reading = named_directions(model, names_in(profile.language), progress=progress)
        units = known_units(model, profile, reading, progress)
    store.remember(person, replace(profile, units=units))
    return reading, units


def _compare(
    model: "Model",
    store: "Store",
    person: str,
    name: str,
    question: str,
    reading: "dict[str, Direction]",
    units: "Units",
    tokens: int,
) -> "Comparison":
    from burnish.personal.enhancing import editing_directions
    from burnish.personal.pair_proposal import compare

    profile, choices = store.profile(person, name), store.choices(person, name)
    with console.progress() as progress:
        editing = editing_directions(model, list(reading), progress)
        return compare(
            model,
            profile,
            choices,
            question,
            reading=reading,
            units=units,
            editing=editing,
            tokens=tokens,
            seed=len(choices),
            progress=progress,
        )


def _asked(comparison: "Comparison") -> float | None:
    """What the person prefers; None when they stop."""
    console.say(f"\n> {comparison.prompt}")
    for number, text in enumerate(comparison.answers, 1):
        console.say(f"\n[{number}]\n{text}")
    while (answer := answer_to("\nWhich is better? 1, 2, or 0 for no preference (empty line: stop) ")) not in ANSWERS:
        if not answer:
            return None
    return ANSWERS[answer]
