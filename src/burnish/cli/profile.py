"""`burnish profile`: a person's own mix, kept on this computer, learned from sliders and choices."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from burnish.cli import console, profile_learning
from burnish.cli.flags import Loading
from burnish.cli.inputs import Json, ModelName, Overwrite, With, WithFactor
from burnish.cli.opening import open_model
from burnish.cli.profile_learning import Name, answer_to, local, show_profile, summary_of
from burnish.cli.run import current_recipe
from burnish.errors import InputError
from burnish.forms import form_help, form_of
from burnish.options import FormName, ModelOptions

app = cyclopts.App(name="profile", help="Your own mix of named directions: made, learned, exported, forgotten.")
app.command(profile_learning.learn)
app.command(profile_learning.choose)


@app.command
def new(
    name: Name,
    *,
    budget: Annotated[float, Parameter(help="nats per token that everyday prompts may move, on average")] = 0.01,
    keep_text: Annotated[
        bool, Parameter(help="keep prompts and answers with the choices; by default only their features", negative=())
    ] = False,
    language: Annotated[str, Parameter(help="language of the prompts and of the named directions: en or ko")] = "en",
    json: Json = False,
) -> None:
    """Make an empty profile."""
    from burnish.personal.store import new_profile
    from burnish.prompts.domains import load_general

    load_general(language)
    store, person = local()
    made = new_profile(name, budget=budget, keep_text=keep_text, language=language)
    store.add(person, made)
    show_profile(made, json=json)
    console.hint(f"burnish profile learn {quote(name)} --set creative-writing=0.5")


@app.command(name="list")
def list_(*, json: Json = False) -> None:
    """List the profiles on this computer."""
    from burnish.personal.profile import describe

    store, person = local()
    profiles = store.profiles(person)
    if json:
        console.as_json([summary_of(profile) for profile in profiles])
        return
    for profile in profiles:
        console.data(f"{profile.name:20} {profile.language}  {describe(profile)}")
    console.hint(f"burnish profile show {quote(profiles[0].name)}" if profiles else "burnish profile new NAME")


@app.command
def show(name: Name, *, json: Json = False) -> None:
    """Show a profile: what it says in words, and its coefficients with how sure they are."""
    store, person = local()
    show_profile(store.profile(person, name), json=json)
    console.hint(f"burnish profile export {quote(name)} smollm2-135m -o OUT --form adapter")


@app.command
def undo(name: Name, *, json: Json = False) -> None:
    """Take the last step of learning back."""
    store, person = local()
    what, profile = store.undo(person, name)
    console.say(f"Taken back: {what}")
    show_profile(profile, json=json)
    console.hint(f"burnish profile show {quote(name)}")


@app.command
def export(
    name: Name,
    model: ModelName,
    *,
    out: Annotated[Path, Parameter(alias="-o", help="output folder (or file, for form enhancement)")],
    enhancement: With = None,
    enhancement_factor: WithFactor = None,
    form: Annotated[FormName, Parameter(help=form_help())] = "adapter",
    overwrite: Overwrite = False,
    loading: Loading = ModelOptions(),
    json: Json = False,
) -> None:
    """Write the profile for a model, within the profile's budget; on any model, also one it was not learned on.

    With an enhancement of that model (--with), the profile comes on top of it, and what both disturb together is measured.
    """
    from burnish.artifacts.files import check_output
    from burnish.cli.enhance import applied_summary, show_applied, show_check
    from burnish.cli.inputs import closing_check
    from burnish.personal.enhancing import editing_directions, fitting, plan_of
    from burnish.pipeline import export as write
    from burnish.pipeline import read_enhancement
    from burnish.steps import finish

    store, person = local()
    profile = store.profile(person, name)
    if not profile.active:
        raise InputError(
            f"The profile '{name}' says nothing yet, so there is nothing to export. Use `burnish profile learn` or `choose` "
            "first."
        )
    check_output(out, 0, overwrite=overwrite)
    beneath = read_enhancement(enhancement, enhancement_factor, "all") if enhancement else None
    loaded = open_model(model, loading)
    if beneath is not None:
        beneath.require(loaded.fingerprint, loaded.anatomy.layers, loaded.anatomy.hidden_size)
    with console.progress() as progress:
        directions = editing_directions(loaded, profile.active, progress)
        unclear = [name for name, direction in directions.items() if not direction.found]
        if unclear:
            console.say(
                f"Note: this model does not tell {', '.join(unclear)} from chance; it gets its dose all the same."
            )
        doses = plan_of(loaded, profile, directions, progress=progress)
        profile = finish(fitting(loaded, profile, doses, progress))
        store.remember(person, profile)
        written, checked = doses.scaled(profile.scales[loaded.fingerprint].value), None
        if beneath is not None:
            written = beneath.combined(written)
            checked = closing_check(loaded, written, language=profile.language, progress=progress)
        applied = write(
            written,
            out,
            form=form,
            model=model,
            overwrite=overwrite,
            check=checked,
            options=loading,
            progress=progress,
            recipe=current_recipe(),
        )
    scale = profile.scales[loaded.fingerprint].value
    if json:
        numbers = {"check": checked.as_dict() if checked else None, **applied_summary(applied)}
        console.as_json({**numbers, "profile": name, "scale": scale, "budget": profile.budget})
    else:
        show_applied(applied)
        show_check(checked)
        how = "in full" if scale == 1 else f"scaled by {scale:.3f}"
        console.data(f"  doses {how}: everyday prompts stay within {profile.budget:g} nats per token, on average")
    if plan := form_of(form).plan_file(applied.out):
        console.hint(f"burnish chat {model} --with {plan} --compare")


@app.command
def forget(
    name: Name, *, yes: Annotated[bool, Parameter(help="do not ask", negative=())] = False, json: Json = False
) -> int:
    """Remove a profile and every trace of it, for good."""
    store, person = local()
    store.profile(person, name)
    if not yes and answer_to(f"Forget '{name}' with all its choices, for good? [y/N] ").lower() not in ("y", "yes"):
        console.say("Nothing forgotten.")
        return 1
    store.forget(person, name)
    console.result({"forgotten": name}, [f"Forgotten: {name}"], json=json)
    console.hint("burnish profile list")
    return 0
