"""`burnish explain`: what a direction is and what an edit does, as one page that opens without network."""

import json as json_module
from os.path import isdir
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, TypeVar

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.find import show_plan
from burnish.cli.flags import Explaining, Loading
from burnish.cli.inputs import DryRun, Json, Layers, ModelName, Overwrite, PromptOptions, WithFactor, WithRequired
from burnish.cli.learn import NUMBERS, TeacherOptions, read_domains
from burnish.cli.opening import expected, open_model
from burnish.errors import InputError
from burnish.extras import require
from burnish.options import ExplainOptions, ModelOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from burnish.artifacts.bake import LayerGain
    from burnish.checking import Check
    from burnish.evaluation.evaluating import Evaluation
    from burnish.learning.report import Learning

T = TypeVar("T")


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
    teacher: TeacherOptions | None = None,
    publish: Annotated[
        bool,
        Parameter(
            help="write the page into the output folder of --with (burnish/page.html) and its figures into the model card",
            negative=(),
        ),
    ] = False,
    numbers: Annotated[
        Path | None, Parameter(help="evaluation.json measured before; a folder's own numbers are found by themselves")
    ] = None,
    overwrite: Overwrite = False,
    options: Explaining = ExplainOptions(),
    loading: Loading = ModelOptions(),
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Explain an enhancement: what its direction is and says, where it lives, what it does to answers and what it cost."""
    from burnish.artifacts.files import check_output, written
    from burnish.explaining.explaining import explain as run
    from burnish.explaining.explaining import packaged_domains
    from burnish.explaining.explanation_work import explanation_work
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
    domains = read_domains(prompts or PromptOptions(), teacher or TeacherOptions(), options.seed)
    measured = read_numbers(enhancement, numbers, scaled=enhancement_factor is not None)
    with console.waiting(f"Opening {model} (a first use fetches and converts it)"):
        stored = open_plan(model, loading, again=True, enhancement=plan)
    plan.require(stored.checkpoint.fingerprint, stored.anatomy.layers, stored.anatomy.hidden_size)
    learned_on = packaged_domains(plan) if domains is None else domains
    estimate = expected(
        model, loading, lambda drawn: explanation_work(drawn, plan, learned_on, options), talk=not dry_run
    )
    if dry_run:
        show_plan({"out": str(out)}, estimate=estimate, json=json)
        return
    loaded = open_model(model, loading)
    with console.progress() as progress:
        facts = run(loaded, plan, domains=domains, options=options, progress=progress, **measured)
    if out is not None:
        page = render_page(facts)
        with written(out, overwrite=overwrite) as partial:
            partial.write_text(page, encoding="utf-8")
    if publish:
        from burnish.explaining.publishing import publish as publish_page

        console.say(f"Written: {publish_page(facts, enhancement)}, and figures in the model card")
    if json:
        console.as_json({"out": str(out) if out else None, **facts.as_dict()})
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


class Measured(TypedDict, total=False):
    """What was measured before, as `explain` takes it."""

    realised: "Sequence[LayerGain]"
    check: "Check | None"
    evaluation: "Evaluation | None"
    learning: "Learning | None"


def read_numbers(enhancement: Path, numbers: Path | None, *, scaled: bool) -> Measured:
    """What was measured before: an output folder's own numbers, then those of a file.

    scaled: the enhancement is taken at another strength, so that its folder's numbers are not its own. Raises InputError for a
    file that holds no evaluation.
    """
    from burnish.artifacts.bake import LayerGain
    from burnish.artifacts.files import MARK, PLAN_FILE
    from burnish.checking import Check
    from burnish.evaluation.evaluating import Evaluation
    from burnish.learning.report import Learning

    measured: Measured = {}
    if isdir(enhancement) and not scaled:
        mark = enhancement / MARK
        if mark.is_file():
            record = _json(mark)
            measured["check"] = None if record.get("check") is None else _typed(record["check"], mark, Check)
            measured["realised"] = _typed(record.get("gains", []), mark, list[LayerGain])
        learned = (enhancement / PLAN_FILE).parent / NUMBERS
        if learned.is_file():
            measured["learning"] = _typed(_json(learned), learned, Learning)
    if numbers is not None:
        stored = _json(numbers)
        if not stored.get("evaluation"):
            raise InputError(f"{numbers} holds no evaluation. Pass evaluation.json of `burnish evaluate`.")
        measured["evaluation"] = _typed(stored["evaluation"], numbers, Evaluation)
    return measured


def _json(path: Path) -> dict[str, Any]:
    try:
        stored = json_module.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read as JSON: {error}. Pass the evaluation.json of `burnish evaluate`."
        ) from error
    if not isinstance(stored, dict):
        raise InputError(f"{path} is JSON, but no object. Pass the evaluation.json of `burnish evaluate`.")
    return stored


def _typed(stored: Any, path: Path, kind: type[T]) -> T:
    """Numbers as the results that they were. Raises InputError for those of another version."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(stored)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path} lacks '{where}', or it is not as it was written ({first['msg']}): it is of another version, or changed. Measure again "
            "with this version."
        ) from error
