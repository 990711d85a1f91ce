"""`burnish explain`: what a direction is and what an edit does, as one page that opens without network."""

import json as json_module
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.flags import flags
from burnish.cli.inputs import Json, ModelName, PromptOptions, With, WithFactor
from burnish.cli.opening import open_model
from burnish.cli.tune import AimOptions, read_specialities
from burnish.errors import InputError
from burnish.options import ExplainOptions, ModelOptions

if TYPE_CHECKING:
    from burnish.tuning.material import Speciality


def explain(
    model: ModelName | None = None,
    *,
    audit: Annotated[
        tuple[str, str] | None,
        Parameter(
            help="instead of a page: two checkpoints of the same shape, BASE OTHER, and what was done to get from one to the other"
        ),
    ] = None,
    named: Annotated[
        bool,
        Parameter(help="with --audit: compare with every packaged domain and style axis, found on BASE", negative=()),
    ] = False,
    enhancement: With = None,
    enhancement_factor: WithFactor = None,
    layers: Annotated[str, Parameter(help="layers to edit, for a direction file: all, 60%.., 10..20")] = "all",
    out: Annotated[
        Path | None, Parameter(alias="-o", help="page to write, .html; without it only the gist is printed")
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
    corpus: Annotated[
        Path | None, Parameter(help="texts of your own in which the direction is looked for (.txt, .jsonl, .csv)")
    ] = None,
    numbers: Annotated[
        Path | None, Parameter(help="evaluation.json or tuning.json measured before; a folder's own is found by itself")
    ] = None,
    overwrite: Annotated[bool, Parameter(help="replace the page", negative=())] = False,
    options: flags(ExplainOptions, "Explanation") = ExplainOptions(),  # type: ignore[valid-type]  # noqa: B008
    loading: flags(ModelOptions, "Model") = ModelOptions(),  # type: ignore[valid-type]  # noqa: B008
    json: Json = False,
) -> None:
    """Explain an enhancement: what its direction is and says, where it lives, what it does to answers and what it cost.

    Or, with --audit BASE OTHER, find out from two checkpoints alone what was done to a model.
    """
    from burnish.artifacts.files import check_output, written
    from burnish.explaining.explaining import explain as run
    from burnish.explaining.gist import gist
    from burnish.explaining.page import render_page
    from burnish.explaining.publishing import publish as publish_page
    from burnish.pipeline import open_plan, read_enhancement
    from burnish.prompts import read_prompts

    if audit is not None:
        if model is not None or out is not None:
            raise InputError(
                "An audit takes two checkpoints, and prints what it finds: leave out MODEL and -o (--json gives the numbers)."
            )
        from burnish.cli.audit import run_audit

        return run_audit(*audit, known=enhancement, named=named, loading=loading, json=json)
    if model is None or enhancement is None or named:
        raise InputError(
            "There is nothing to explain. Pass MODEL --with FILE (a direction, an enhancement, or a folder with one), or "
            "--audit BASE OTHER, which --named belongs to."
        )
    if out is not None:
        check_output(out, 0, overwrite=overwrite)
    if publish and not enhancement.is_dir():
        raise InputError(
            f"--publish writes into an output folder, and {enhancement} is none. Pass --with FOLDER, or -o."
        )
    plan = read_enhancement(enhancement, enhancement_factor, layers)
    specialities = own_specialities(prompts or PromptOptions(), aim or AimOptions(), options.seed)
    texts = read_prompts(corpus) if corpus else None
    measured = read_numbers(enhancement, numbers, scaled=enhancement_factor is not None)
    with console.waiting(f"Opening {model} (a first use fetches and converts it)"):
        stored = open_plan(model, loading, again=True, enhancement=plan)
    plan.require(stored.checkpoint.fingerprint, stored.anatomy.layers, stored.anatomy.hidden_size)
    loaded = open_model(model, loading)
    with console.progress() as progress:
        facts = run(
            loaded, plan, specialities=specialities, corpus=texts, options=options, progress=progress, **measured
        )
    if out is not None:
        page = render_page(facts)
        with written(out, overwrite=overwrite) as partial:
            partial.write_text(page, encoding="utf-8")
    if publish:
        console.say(f"Written: {publish_page(facts, enhancement)}, and figures in the model card")
    if json:
        console.as_json({"out": str(out) if out else None, **asdict(facts)})
    else:
        found = gist(facts)
        console.data(found.verdict)
        for card in found.cards:
            console.data(f"\n{card.title}")
            for sentence in card.sentences:
                console.data(f"  {sentence}")
        for caveat in found.caveats:
            console.data(f"\nNote: {caveat}")
        if facts.answers and console.on_terminal():
            from burnish.cli.token_view import LEGEND, token_tables

            for table in token_tables(facts.answers):
                console.drawn(table)
            console.data(LEGEND)
    if out is not None:
        console.say(f"Written: {out}")
    if out is None and not publish:
        console.hint(f"burnish explain {model} --with {enhancement} -o page.html")
    else:
        console.hint(f"burnish evaluate {model} --with {enhancement} --domain NAME")


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
    from burnish.evaluation.evaluating import Evaluation
    from burnish.tuning.tuning import Tuned

    found: dict[str, Any] = {}
    if enhancement.is_dir() and not scaled:
        if (enhancement / MARK).is_file():
            mark = _json(enhancement / MARK)
            found = {"check": mark.get("check"), "realised": mark.get("gains", ())}
        for path in (enhancement / "tuning.json", (enhancement / PLAN_FILE).parent / "tuning.json"):
            if path.is_file():
                found["tuned"] = _complete(_json(path), path, Tuned)
    if numbers is not None:
        stored = _json(numbers)
        if "frontier" in stored:
            found["tuned"] = _complete(stored, numbers, Tuned)
        elif stored.get("evaluation"):
            found["evaluation"] = _complete(stored["evaluation"], numbers, Evaluation)
        else:
            raise InputError(
                f"{numbers} holds no evaluation and no tuning. Pass evaluation.json of `burnish evaluate` or tuning.json of "
                "`burnish tune`."
            )
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        stored = json_module.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json_module.JSONDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as JSON: {error}. Pass the evaluation.json or tuning.json of an output folder."
        ) from error
    if not isinstance(stored, dict):
        raise InputError(f"{path} is JSON, but no object. Pass the evaluation.json or tuning.json of an output folder.")
    return stored


def _complete(stored: dict[str, Any], path: Path, kind: type[Any]) -> dict[str, Any]:
    """Numbers with every field of their kind. Raises InputError for those of another version."""
    missing = sorted({f.name for f in fields(kind)} - {"enhancement"} - stored.keys())
    if missing:
        raise InputError(
            f"{path} lacks '{missing[0]}': it was written by another version, or changed. Measure again with this version."
        )
    return stored
