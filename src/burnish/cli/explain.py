"""`burnish explain`: what a direction is and what an edit does, as one page that opens without network."""

import json as json_module
from dataclasses import asdict, fields
from os.path import isdir
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.flags import Explaining, Loading
from burnish.cli.inputs import Json, Layers, ModelName, Overwrite, PromptOptions, WithFactor, WithRequired
from burnish.cli.opening import open_model
from burnish.cli.tune import AimOptions, read_specialities
from burnish.errors import InputError
from burnish.extras import require
from burnish.options import ExplainOptions, ModelOptions

if TYPE_CHECKING:
    from burnish.tuning.aims import Speciality


def explain(
    model: ModelName,
    *,
    enhancement: WithRequired,
    enhancement_factor: WithFactor = None,
    layers: Layers = "all",
    out: Annotated[
        Path | None, Parameter(alias="-o", help="page to write, .html; without it only the summary is printed")
    ] = None,
    prompts: PromptOptions | None = None,
    aim: AimOptions | None = None,
    publish: Annotated[
        bool,
        Parameter(
            help="write the page into the output folder of --with (burnish/page.html) and its figures into the model card",
            negative=(),
        ),
    ] = False,
    numbers: Annotated[
        Path | None, Parameter(help="evaluation.json or tuning.json measured before; a folder's own is found by itself")
    ] = None,
    overwrite: Overwrite = False,
    options: Explaining = ExplainOptions(),
    loading: Loading = ModelOptions(),
    json: Json = False,
) -> None:
    """Explain an enhancement: what its direction is and says, where it lives, what it does to answers and what it cost."""
    from burnish.artifacts.files import check_output, written
    from burnish.explaining.explaining import explain as run
    from burnish.explaining.formats import visible
    from burnish.explaining.page import render_page
    from burnish.explaining.summary import summarise
    from burnish.pipeline import open_plan, read_enhancement

    if out is not None or publish:
        require("report", "A page with charts")
    if out is not None:
        check_output(out, 0, overwrite=overwrite)
    if publish and not isdir(enhancement):
        raise InputError(
            f"--publish writes into an output folder, and {enhancement} is none. Pass --with FOLDER, or -o."
        )
    plan = read_enhancement(enhancement, enhancement_factor, layers)
    specialities = own_specialities(prompts or PromptOptions(), aim or AimOptions(), options.seed)
    measured = read_numbers(enhancement, numbers, scaled=enhancement_factor is not None)
    with console.waiting(f"Opening {model} (a first use fetches and converts it)"):
        stored = open_plan(model, loading, again=True, enhancement=plan)
    plan.require(stored.checkpoint.fingerprint, stored.anatomy.layers, stored.anatomy.hidden_size)
    loaded = open_model(model, loading)
    with console.progress() as progress:
        facts = run(loaded, plan, specialities=specialities, options=options, progress=progress, **measured)
    if out is not None:
        page = render_page(facts)
        with written(out, overwrite=overwrite) as partial:
            partial.write_text(page, encoding="utf-8")
    if publish:
        from burnish.explaining.publishing import publish as publish_page

        console.say(f"Written: {publish_page(facts, enhancement)}, and figures in the model card")
    if json:
        console.as_json({"out": str(out) if out else None, **asdict(facts)})
    else:
        summary = summarise(facts)
        console.data(summary.verdict)
        for card in summary.cards:
            console.data(f"\n{card.title}")
            for sentence in card.sentences:
                console.data(f"  {sentence}")
        for caveat in summary.caveats:
            console.data(f"\nNote: {caveat}")
        for pair in facts.answers:
            console.data("\n" + visible(f"> {pair.prompt}\n\nbase: {pair.base}\n\nenhanced: {pair.enhanced}"))
    if out is not None:
        console.say(f"Written: {out}")
    if out is None and not publish:
        console.hint(f"burnish explain {model} --with {quote(str(enhancement))} -o page.html")
    else:
        console.hint(f"burnish evaluate {model} --with {quote(str(enhancement))} --domain NAME")


def own_specialities(prompts: PromptOptions, aim: AimOptions, seed: int) -> "list[Speciality] | None":
    """None: the packaged domains that the directions name themselves."""
    if not prompts.domain and prompts.enhance is None:
        if aim != AimOptions():
            raise InputError(
                "--references, --pairs, --expert and --judge-... say more of prompts of your own. Pass --enhance FILE or --domain NAME "
                "with them."
            )
        return None
    return read_specialities(prompts, aim, seed)


def read_numbers(enhancement: Path, numbers: Path | None, *, scaled: bool) -> dict[str, Any]:
    """What was measured before, as `explain` takes it: an output folder's own numbers, then those of a file.

    scaled: the enhancement is taken at another strength, so that its folder's numbers are not its own. Raises InputError for a
    file that holds neither an evaluation nor a tuning.
    """
    from burnish.artifacts.bake import MARK
    from burnish.artifacts.files import PLAN_FILE
    from burnish.cli.learn import NUMBERS
    from burnish.evaluation.evaluating import Evaluation
    from burnish.tuning.tuning import Tuned

    measured: dict[str, Any] = {}
    if isdir(enhancement) and not scaled:
        if (enhancement / MARK).is_file():
            mark = _json(enhancement / MARK)
            measured = {"check": mark.get("check"), "realised": mark.get("gains", ())}
        for path in (enhancement / "tuning.json", (enhancement / PLAN_FILE).parent / "tuning.json"):
            if path.is_file():
                measured["tuned"] = _complete(_json(path), path, Tuned)
        learned = (enhancement / PLAN_FILE).parent / NUMBERS
        if learned.is_file():
            measured["learning"] = _learned(_json(learned), learned)
    if numbers is not None:
        stored = _json(numbers)
        if "frontier" in stored:
            measured["tuned"] = _complete(stored, numbers, Tuned)
        elif stored.get("evaluation"):
            measured["evaluation"] = _complete(stored["evaluation"], numbers, Evaluation)
        else:
            raise InputError(
                f"{numbers} holds no evaluation and no tuning. Pass evaluation.json of `burnish evaluate` or tuning.json of "
                "`burnish tune`."
            )
    return measured


def _learned(stored: dict[str, Any], path: Path) -> dict[str, Any]:
    """What was measured while learning. Raises InputError for numbers of another version."""
    from burnish.learning.learning import Learned
    from burnish.learning.report import Taught

    for each in _complete(stored, path, Learned)["taught"]:
        _complete(each, path, Taught)
    return stored


def _json(path: Path) -> dict[str, Any]:
    try:
        stored = json_module.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read as JSON: {error}. Pass the evaluation.json or tuning.json of an output folder."
        ) from error
    if not isinstance(stored, dict):
        raise InputError(f"{path} is JSON, but no object. Pass the evaluation.json or tuning.json of an output folder.")
    return stored


def _complete(stored: dict[str, Any], path: Path, kind: type[Any]) -> dict[str, Any]:
    """Numbers with every field of their kind. Raises InputError for those of another version."""
    missing = sorted({f.name for f in fields(kind)} - {"enhancement", "seconds"} - stored.keys())
    if missing:
        raise InputError(
            f"{path} lacks '{missing[0]}': it was written by another version, or changed. Measure again with this version."
        )
    return stored
