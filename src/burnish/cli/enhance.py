"""`burnish enhance`: the main job, from prompts to a model on disk."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.explain import Measured
from burnish.cli.find import ContrastMethod, show_plan
from burnish.cli.flags import Finding, Gains, Loading, Output, Size
from burnish.cli.inputs import CHECK_PROMPTS, DryRun, Json, ModelName, PromptOptions, read_contrasts
from burnish.cli.layer_by_layer import by_layer, estimated, in_words, open_layered
from burnish.cli.learn import LearnedMethod, TeacherOptions, read_domains, read_subjects
from burnish.cli.opening import expected, open_model
from burnish.cli.run import current_recipe
from burnish.errors import InputError
from burnish.extras import require
from burnish.forms import form_of
from burnish.layers import layer_index, layer_window
from burnish.model.processes import launched
from burnish.options import (
    DEFAULT_FACTOR,
    FindOptions,
    GainOptions,
    LayerOptions,
    LearnOptions,
    ModelOptions,
)

if TYPE_CHECKING:
    from burnish.artifacts.direction import Enhancement
    from burnish.checking import Check
    from burnish.forms.base import Applied
    from burnish.model.forecast import Work
    from burnish.model.model import Model
    from burnish.prompts.domains import Domain

MethodName = Literal["learned", "published"]
Method = LearnedMethod | ContrastMethod


@Parameter(name="*", group="Strength")
@dataclass(frozen=True)
class LearningFlags:
    """Of learnt directions alone."""

    steps: Annotated[int, Parameter(help="with learned: steps of the optimiser")] = LearnOptions.steps
    directions: Annotated[int, Parameter(help="with learned: directions a layer")] = LearnOptions.directions
    guidance: Annotated[float, Parameter(help="with learned: 1 is as the expert's prompt, above 1 beyond it")] = (
        LearnOptions.guidance
    )


def enhance(
    model: ModelName,
    *,
    output: Output,
    prompts: PromptOptions | None = None,
    method: Annotated[
        MethodName | None,
        Parameter(
            help="learned: directions and gains from the model under an expert's prompt (the default); published: one contrast direction, "
            "factor 1.5 (the default with a factor)",
            group="Strength",
        ),
    ] = None,
    gains: Gains = GainOptions(),
    budget: Annotated[
        float | None,
        Parameter(help="with learned: nats per token that everyday prompts may move (0.03)", group="Strength"),
    ] = None,
    learning: LearningFlags | None = None,
    teacher: TeacherOptions | None = None,
    finding: Finding = FindOptions(),
    loading: Loading = ModelOptions(),
    size: Size = LayerOptions(),
    check_prompts: Annotated[
        int, Parameter(help="general prompts of the closing check of contrast directions; 0 leaves it out")
    ] = CHECK_PROMPTS,
    page: Annotated[
        bool,
        Parameter(
            help="explain contrast directions: a page in the output folder and figures in the model card; learnt ones always have a page",
            negative=(),
        ),
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Make a model answer as under an expert's system prompt, without the prompt: learn directions, strengthen, write, measure.

    With --method published, and with a factor, directions are found as a contrast of prompts.
    """
    from burnish.artifacts.files import PLAN_FILE
    from burnish.checking import check
    from burnish.model.processes import current
    from burnish.pipeline import apply, open_plan, write_plan

    prompts, teacher, output = prompts or PromptOptions(), teacher or TeacherOptions(), output.of_model(model)
    name = chosen_method(method, gains, finding)
    check_call(name, teacher, size, page=page, split=loading.tensor_parallel)
    if page and not form_of(output.form).folder:
        raise InputError(
            f"--page writes into an output folder, and form {output.form} is one file. Use `burnish explain MODEL --with FILE -o page.html`."
        )
    way = _read(name, gains, budget, learning or LearningFlags(), prompts, teacher, finding)
    with console.waiting(f"Opening {model} (a first use fetches and converts it)"), current().one_ahead():
        plan = open_plan(model, loading, again=finding.force)
    layer_index(finding.layer_idx, plan.anatomy.layers)  # one that is not there is refused before any weight is loaded
    window = layer_window(gains.layers, plan.anatomy.layers)
    planned = write_plan(plan, output, list(window) if way.edits else [], rank=way.rank)
    console.say(
        f"Plan: {plan.anatomy.coverage()}; editing layers {window.start}-{window.stop - 1} with {way.strength}."
    )
    layered = cost_by_layer = None
    if isinstance(way, ContrastMethod) and not page and by_layer(plan, loading, size):
        layered = open_layered(model, loading, size)
        cost_by_layer = estimated(layered, [contrast for _, contrast in way.contrasts], finding)
    estimate = None
    if layered is None:
        estimate = expected(model, loading, lambda drawn: _work(way, drawn, check_prompts), talk=not dry_run)
    if dry_run:
        show_plan(vars(planned), cost_by_layer, estimate, json=json)
        return
    if cost_by_layer is not None:
        console.say(
            f"Layer by layer: {in_words(cost_by_layer)}. The closing check needs the whole model and is left out."
        )
        check_prompts = 0
    loaded = layered or open_model(model, loading)
    enhancement = way.run(loaded, json=json)
    first = current().first
    if not (first or loaded.tensor_parallel):
        return
    with console.progress() as progress:
        checked = way.check
        if checked is None and check_prompts and way.general is not None:
            checked = check(loaded, enhancement, way.general.spread(check_prompts), progress=progress)
        if not first:  # it held its part of the layers while they were checked
            return
        applied = apply(
            plan, enhancement, output, name=model, check=checked, progress=progress, recipe=current_recipe()
        )
    if form_of(applied.form).folder:
        way.write(loaded, applied.out / Path(PLAN_FILE).parent)
    if page and name != "learned":
        measured = Measured(realised=applied.gains, check=checked)
        _explain(loaded, enhancement, applied.out, read_domains(prompts, teacher, finding.seed), measured)
    if json:
        numbers = {"check": checked.as_dict() if checked else None, **applied_summary(applied)}
        console.as_json({**way.summary(), **numbers})
    else:
        way.show()
        show_applied(applied)
        if way.check is None:
            show_check(checked)
    hint_use(model, applied)
    if form_of(applied.form).folder:
        console.hint(f"burnish chat {model} --with {applied.out / PLAN_FILE} --compare")


def _work(way: Method, model: "Model", check_prompts: int) -> "Work":
    """Of the method and the closing check."""
    from burnish.checking import CHECK_TOKENS
    from burnish.model.forecast import answering, comparing

    if way.general is None or not check_prompts:
        return way.work(model)
    checked = way.general.spread(check_prompts)
    return way.work(model) + answering(model, checked, CHECK_TOKENS) * 2 + comparing(model, checked, CHECK_TOKENS, 1)


def _read(
    name: MethodName,
    gains: GainOptions,
    budget: float | None,
    learning: LearningFlags,
    prompts: PromptOptions,
    teacher: TeacherOptions,
    finding: FindOptions,
) -> Method:
    """The method with its prompts. Raises InputError, PromptFileError; also for flags of another method."""
    if name != "learned" and learning != LearningFlags():
        raise InputError(
            f"--steps, --directions and --guidance belong to learnt directions, and this is --method {name}. Leave them out."
        )
    if name == "learned":
        options = LearnOptions(
            budget=LearnOptions.budget if budget is None else budget,
            layers=gains.layers,
            steps=learning.steps,
            directions=learning.directions,
            guidance=learning.guidance,
            seed=finding.seed,
        )
        return LearnedMethod(read_subjects(prompts, teacher, finding.seed), options)
    if budget is not None:
        raise InputError(
            "--budget chooses the strength, and a factor sets it. Pass one of the two; `burnish evaluate` measures what a factor disturbs."
        )
    factor = DEFAULT_FACTOR if gains.auto else gains.factor
    return ContrastMethod(read_contrasts(prompts, finding.position), factor, gains.layers, finding)


def chosen_method(method: MethodName | None, gains: GainOptions, finding: FindOptions) -> MethodName:
    """The method asked for, or the one that fits what was given. Raises InputError for a factor with a method that chooses it."""
    if method is not None:
        if method != "published" and not gains.auto:
            raise InputError(
                f"--method {method} chooses the gains itself, and --enhancement-factor {gains.enhancement_factor} sets them. Pass one of "
                "the two."
            )
        if method != "published" and replace(finding, seed=0, force=False) != FindOptions():
            raise InputError(
                f"With --method {method} the directions are chosen too: leave out --scope, --site, --position, --protect, --layer-idx and "
                "--instructions, or pass --method published with them."
            )
        return method
    if not gains.auto or replace(finding, seed=0, force=False) != FindOptions():
        return "published"  # how a contrast direction is found says that one is wanted
    return "learned"


def _explain(
    model: "Model",
    enhancement: "Enhancement",
    folder: Path,
    domains: "list[Domain] | None",
    measured: Measured,
) -> None:
    from burnish.explaining.explaining import explain
    from burnish.explaining.publishing import publish

    with console.progress() as progress:
        facts = explain(model, enhancement, domains=domains, progress=progress, **measured)
    console.say(f"Written: {publish(facts, folder)}, and figures in the model card")


def check_call(name: MethodName, teacher: TeacherOptions, size: LayerOptions, *, page: bool, split: bool) -> None:
    """Wrong calls and a missing library, before anything is read. split: --tensor-parallel. Raises InputError."""
    if page:
        require("report", "A page with charts")
    processes = launched().count
    needs_all = "--page" if page else f"--method {name}" if name != "published" else ""
    shared = name == "learned" and not page
    if processes > 1 and shared and split:
        raise InputError(
            "Learning shares its answers between processes that hold the model each, and --tensor-parallel splits it over them. Leave it out; "
            "for a model that no device holds, start one process with --device spread."
        )
    if processes > 1 and needs_all and not shared:
        raise InputError(
            f"{needs_all} runs in one process, and this is one of {processes}. Pass a factor such as 0.5 and no --page, or start it "
            "without torchrun."
        )
    if size.layer_by_layer and needs_all:
        raise InputError(
            f"{needs_all} runs the whole model many times, which layer by layer would read all weights each time. Pass a factor such as "
            "0.5 and no --page with --layer-by-layer."
        )
    if name == "published" and teacher != TeacherOptions():
        raise InputError(
            "--references and --expert say what is learnt. Leave out --method published and the factor with them."
        )


def show_check(checked: "Check | None") -> None:
    """The closing check in two lines."""
    if checked is not None:
        console.data(f"Check: {checked.verdict}")
        console.data(
            f"  {checked.prompts} general prompts, KL mean {checked.kl_mean:.4f}, 95th percentile {checked.kl_p95:.3f} nats per token; "
            f"repeated 4-grams {checked.repetition_base:.1%} -> {checked.repetition_enhanced:.1%}"
        )


def applied_summary(applied: "Applied") -> dict[str, Any]:
    """What was written, for --json."""
    return {
        "out": str(applied.out),
        "form": applied.form,
        "bytes": applied.bytes,
        "coverage": applied.coverage,
        "gains": [asdict(g) for g in applied.gains],
        "notes": list(applied.notes),
    }


def show_applied(applied: "Applied") -> None:
    """What was written, in a line or two."""
    console.data(f"Written: {applied.out} ({applied.form}, {applied.bytes:,} bytes); {applied.coverage}")
    pairs = [(a, r) for g in applied.gains for a, r in zip(g.asked, g.realised, strict=True) if a]
    if pairs:
        worst = max(pairs, key=lambda pair: abs(pair[1] / pair[0] - 1))
        console.data(
            f"  gains realised / asked: {worst[1]:.4f} / {worst[0]:.4f} at worst, over {len(pairs)} projections"
        )
    for note in applied.notes:
        console.say(f"Note: {note}")


def hint_use(model: str, applied: "Applied") -> None:
    """What to do with what was written."""
    if use := form_of(applied.form).hint(model, applied.out):
        console.hint(use)
