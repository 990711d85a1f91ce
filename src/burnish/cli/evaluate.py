"""`burnish evaluate`: what got better, what else moved, and how the alternatives compare at the same cost."""

import json as json_module
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.find import show_plan
from burnish.cli.flags import Evaluating, Loading
from burnish.cli.inputs import ROWS, DryRun, Json, JudgeOptions, Layers, ModelName, Overwrite, With, WithFactor
from burnish.cli.opening import expected, open_model
from burnish.errors import BurnishError, InputError
from burnish.extras import require
from burnish.options import EvaluateOptions, ModelOptions

if TYPE_CHECKING:
    from burnish.artifacts.direction import Enhancement
    from burnish.artifacts.lora import LoraAdapter
    from burnish.evaluation.evaluating import Evaluation
    from burnish.model.model import Model
    from burnish.prompts.domains import Domain


@Parameter(name="*", group="Judge and standard tasks")
@dataclass(frozen=True)
class Extras(JudgeOptions):
    """Optional measures."""

    task: Annotated[
        tuple[str, ...], Parameter(help="standard task of lm-eval, on base and enhanced; may be repeated")
    ] = ()
    task_folder: Annotated[Path | None, Parameter(help="folder of local lm-eval task files")] = None
    task_limit: Annotated[int | None, Parameter(help="documents of each task")] = None


def evaluate(
    model: ModelName,
    *,
    enhancement: With = None,
    enhancement_factor: WithFactor = None,
    layers: Layers = "all",
    domain: Annotated[str | None, Parameter(help="domain to measure the effect on, packaged or your own")] = None,
    pairs: Annotated[Path | None, Parameter(help=f"own pairs: rows of prompt, chosen, rejected ({ROWS})")] = None,
    compare: Annotated[bool, Parameter(help="compare the alternatives at equal damage", negative=())] = False,
    adapter: Annotated[
        tuple[Path, ...],
        Parameter(
            help="PEFT LoRA folder or hub id as a further row of the comparison; may be repeated",
            negative=(),
            show_default=False,
        ),
    ] = (),
    extras: Extras | None = None,
    out: Annotated[Path | None, Parameter(alias="-o", help="folder for evaluation.json, tables and samples")] = None,
    overwrite: Overwrite = False,
    options: Evaluating = EvaluateOptions(),
    loading: Loading = ModelOptions(),
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Measure effect and damage of an enhancement with intervals; with --compare, against alternatives at equal damage."""
    from burnish.artifacts.files import check_output
    from burnish.evaluation.comparison import compare as run_comparison
    from burnish.evaluation.evaluating import evaluate as run_evaluation
    from burnish.evaluation.evaluation_tables import comparison_table, evaluation_table, samples_page
    from burnish.evaluation.evaluation_work import comparison_work, evaluation_work
    from burnish.model.forecast import Work
    from burnish.model.row_edits import check_adapter
    from burnish.pipeline import read_enhancement
    from burnish.prompts import read_prompts
    from burnish.prompts.domains import load_domain

    extras = extras or Extras()
    _check(enhancement, domain, pairs, compare, adapter, extras)
    measured = load_domain(domain) if domain else None
    own_pairs = read_prompts(pairs) if pairs else None
    plan = read_enhancement(enhancement, enhancement_factor, layers) if enhancement else None
    adapters = _adapters(adapter)
    if out is not None:
        check_output(out, 0, overwrite=overwrite)

    def work(drawn: "Model") -> "Work":
        given = len(adapters) + (plan is not None)
        measuring = evaluation_work(drawn, measured, own_pairs, options) if plan is not None else Work()
        return measuring + (comparison_work(drawn, measured, given, options) if compare and measured else Work())

    estimate = expected(model, loading, work, talk=not dry_run)
    if dry_run:
        show_plan({"out": str(out)}, estimate=estimate, json=json)
        return
    loaded = open_model(model, loading)
    for lora in adapters:
        check_adapter(loaded, lora)
    result: dict[str, Any] = {}
    tables: dict[str, str] = {}
    with console.progress() as progress:
        if plan is not None:
            evaluation = run_evaluation(
                loaded, plan, domain=measured, pairs=own_pairs, options=options, progress=progress
            )
            result["evaluation"], tables["evaluation.md"] = asdict(evaluation), evaluation_table(evaluation)
            tables["samples.md"] = samples_page(evaluation)
        if compare and measured is not None:
            compared = run_comparison(loaded, measured, options, enhancement=plan, adapters=adapters, progress=progress)
            result["comparison"], tables["comparison.md"] = asdict(compared), comparison_table(compared)
    failure = None
    try:
        if plan is not None:
            result["judge"] = _judged(evaluation, measured, extras)
        if extras.task:
            result["standard"] = _standard(loaded, plan, extras, options.seed)
    except BurnishError as error:  # what was measured before is kept and shown
        failure = error
    if out is not None:
        _write(out, result, tables, overwrite=overwrite)
    if json:
        console.as_json(result)
    else:
        _show(result, tables)
    if failure is not None:
        raise failure
    console.hint(
        f"burnish chat {model} --with {quote(str(enhancement))} --compare"
        if enhancement
        else f"burnish find {model} --domain {domain} -o FILE"
    )


def _show(result: dict[str, Any], tables: dict[str, str]) -> None:
    """The tables, then what has none."""
    for name in ("evaluation.md", "comparison.md"):
        if name in tables:
            console.data(tables[name] + "\n")
    for key in ("judge", "standard"):
        if result.get(key):
            console.data(f"{key}: {json_module.dumps(result[key], ensure_ascii=False, indent=2, default=str)}")


def _adapters(folders: tuple[Path, ...]) -> list["LoraAdapter"]:
    """Adapters named after their folders, or after the paths given where two folders have the same name, or by their hub id."""
    from burnish.artifacts.hub import adapter_folder, hub_id
    from burnish.artifacts.lora import read_lora

    adapters = [
        read_lora(folder) if hub_id(folder) is None else replace(read_lora(adapter_folder(folder)), name=str(folder))
        for folder in folders
    ]
    names = [lora.name for lora in adapters]
    return [
        replace(lora, name=str(folder)) if names.count(lora.name) > 1 else lora
        for lora, folder in zip(adapters, folders, strict=True)
    ]


def _check(
    enhancement: Path | None,
    domain: str | None,
    pairs: Path | None,
    compare: bool,
    adapters: tuple[Path, ...],
    extras: Extras,
) -> None:
    """Wrong calls and a missing library, before anything is loaded. Raises InputError."""
    if adapters and not compare:
        raise InputError(
            "--adapter adds a row to the comparison at equal damage. Pass --compare --domain NAME as well."
        )
    if enhancement is None and not compare:
        raise InputError(
            "There is nothing to evaluate. Pass --with FILE, or --compare to compare the built-in methods."
        )
    if compare and domain is None:
        raise InputError("--compare needs a domain to measure on. Pass --domain NAME.")
    if enhancement is not None and domain is None and pairs is None:
        raise InputError("An effect needs something to be measured on. Pass --domain NAME, --pairs FILE, or both.")
    if extras.task:
        require("eval", "A standard task")
    if extras.judge() is not None and (enhancement is None or domain is None):
        raise InputError("A judge marks the answers of an enhancement on a domain. Pass --with FILE and --domain NAME.")


def _judged(evaluation: "Evaluation", domain: "Domain | None", extras: Extras) -> dict[str, Any] | None:
    """Marks of base and enhanced answers, where a judge was named."""
    judge = extras.judge()
    if judge is None or domain is None:
        return None
    from burnish.evaluation.judge import mark_answers

    prompts = [s.prompt for s in evaluation.samples]
    base, enhanced = [s.base for s in evaluation.samples], [s.enhanced for s in evaluation.samples]
    about = {"title": domain.title, "summary": domain.summary}
    return {
        "base": asdict(mark_answers(judge, prompts, base, **about)),
        "enhanced": asdict(mark_answers(judge, prompts, enhanced, **about)),
    }


def _standard(model: "Model", plan: "Enhancement | None", extras: Extras, seed: int) -> dict[str, Any]:
    from burnish.evaluation.standard import run_standard

    limit, folder = extras.task_limit, extras.task_folder
    return asdict(run_standard(model, extras.task, enhancement=plan, include=folder, limit=limit, seed=seed))


def _write(out: Path, result: dict[str, Any], tables: dict[str, str], *, overwrite: bool) -> None:
    from burnish.artifacts.files import written

    with written(out, overwrite=overwrite) as folder:
        folder.mkdir()
        text = json_module.dumps(result, ensure_ascii=False, indent=2, default=str)
        (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        for name, table in tables.items():
            (folder / name).write_text(table + "\n", encoding="utf-8")
    console.say(f"Written: {out}")
