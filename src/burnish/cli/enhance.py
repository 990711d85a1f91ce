"""`burnish enhance`: the main job, from prompts to a model on disk."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.explain import own_specialities, read_numbers
from burnish.cli.find import check_layer, run_find, show_direction, show_plan, summary
from burnish.cli.flags import flags
from burnish.cli.inputs import Contrast, DryRun, Json, ModelName, PromptOptions, general_prompts, read_contrasts
from burnish.cli.layers import by_layer, estimated, in_words, open_layered
from burnish.cli.tune import AimOptions, read_specialities, require_gains, run_tune, show_tuned, write_numbers
from burnish.errors import InputError
from burnish.model.processes import launched
from burnish.options import (
    FindOptions,
    GainOptions,
    LayerOptions,
    ModelOptions,
    OutputOptions,
    TuneOptions,
    checked_factor,
)

if TYPE_CHECKING:
    from burnish.artifacts.direction import Direction, Enhancement
    from burnish.checking import Check
    from burnish.model.model import Model
    from burnish.pipeline import Applied
    from burnish.tuning.material import Speciality
    from burnish.tuning.tuning import Tuned

CHECK_PROMPTS = 24
FOLDERS = ("model", "adapter")  # forms that are folders; the others are one file
DIRECTIONS = 2  # a layer, for each speciality that is tuned


def enhance(
    model: ModelName,
    *,
    output: flags(OutputOptions, "Output"),  # type: ignore[valid-type]
    prompts: PromptOptions | None = None,
    gains: flags(GainOptions, "Strength") = GainOptions(),  # type: ignore[valid-type]  # noqa: B008
    budget: Annotated[
        float, Parameter(help="with auto: nats per token that everyday prompts may move", group="Strength")
    ] = TuneOptions.budget,
    aim: AimOptions | None = None,
    finding: flags(FindOptions, "Direction") = FindOptions(),  # type: ignore[valid-type]  # noqa: B008
    loading: flags(ModelOptions, "Model") = ModelOptions(),  # type: ignore[valid-type]  # noqa: B008
    size: flags(LayerOptions, "Size") = LayerOptions(),  # type: ignore[valid-type]  # noqa: B008
    check_prompts: Annotated[
        int, Parameter(help="general prompts of the closing check; 0 leaves it out")
    ] = CHECK_PROMPTS,
    page: Annotated[
        bool,
        Parameter(help="explain the result: a page in the output folder and figures in the model card", negative=()),
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Find a direction, strengthen the attention output projections along it, write the result and check it."""
    from burnish.artifacts.files import PLAN_FILE
    from burnish.checking import check
    from burnish.model.model import load
    from burnish.model.processes import current
    from burnish.options import layer_window
    from burnish.pipeline import apply, open_plan, write_plan

    prompts, aim, output = prompts or PromptOptions(), aim or AimOptions(), output.of_model(model)
    auto = gains.enhancement_factor == "auto"
    _check(gains, finding, aim, size, page=page)
    if loading.tensor_parallel and output.form == "gguf-control-vector":
        raise InputError(
            "Form gguf-control-vector runs the model while it writes, and one process alone holds a part of each layer. Leave out "
            "--tensor-parallel, or write --form enhancement and `burnish apply` it in one process."
        )
    if page and output.form not in FOLDERS:
        raise InputError(
            f"--page writes into an output folder, and form {output.form} is one file. Use `burnish explain MODEL --with FILE -o page.html`."
        )
    tuning = TuneOptions(budget=budget, window=gains.layers, seed=finding.seed)
    specialities = read_specialities(prompts, aim, finding.seed) if auto else []
    contrasts = [] if auto else read_contrasts(prompts, finding.position)
    general = general_prompts(specialities) if auto else contrasts[0][1].general
    with console.waiting(f"Opening {model} (a first use fetches and converts it)"), current().one_ahead():
        plan = open_plan(model, loading, again=finding.force)
    check_layer(finding, plan.anatomy.layers)
    window = layer_window(gains.layers, plan.anatomy.layers)
    rank = DIRECTIONS * len(specialities) if auto else len(contrasts)
    planned = write_plan(plan, output, list(window) if auto or gains.factor else [], rank=rank)
    strength = f"gains chosen within {budget:g} nats per token" if auto else f"factor {gains.factor:g}"
    console.say(f"Plan: {plan.anatomy.coverage()}; editing layers {window.start}-{window.stop - 1} with {strength}.")
    layered = open_layered(model, loading, size) if not (auto or page) and by_layer(plan, loading, size) else None
    cost = estimated(layered, [contrast for _, contrast in contrasts], finding) if layered else None
    if dry_run:
        show_plan(vars(planned), cost, json=json)
        return
    if cost is not None:
        console.say(f"Layer by layer: {in_words(cost)}. The closing check needs the whole model and is left out.")
        check_prompts = 0
    with console.waiting(f"Loading {model}"):
        loaded = layered or load(model, loading)
    tuned: Tuned | None = None
    directions: list[Direction] = []
    if auto:
        tuned = run_tune(loaded, specialities, aim, tuning)
        enhancement = tuned.enhancement
        if tuned.abstained:
            show_tuned(tuned, json=json)
            require_gains(tuned)
    else:
        enhancement, directions = _found(loaded, contrasts, gains, finding)
    first = current().first
    if not (first or loaded.tensor_parallel):
        return
    with console.progress() as progress:
        checked = (
            check(loaded, enhancement, general.spread(check_prompts), progress=progress) if check_prompts else None
        )
        if not first:  # it held its part of the layers while they were checked
            return
        applied = apply(plan, enhancement, output, name=model, check=checked, loaded=loaded, progress=progress)
    if tuned is not None and applied.form in FOLDERS:
        write_numbers(applied.out / Path(PLAN_FILE).parent, tuned)
    if page:
        _explain(loaded, enhancement, applied.out, own_specialities(prompts, aim, finding.seed))
    if json:
        from burnish.tuning.tables import tuned_summary

        found = {"direction": summary(directions[0])} if len(directions) == 1 else {}
        several = {"directions": [summary(d) for d in directions]} if len(directions) > 1 else {}
        numbers = {"check": checked.as_dict() if checked else None, **applied_summary(applied)}
        console.as_json({**found, **several, **({"tuned": tuned_summary(tuned)} if tuned else {}), **numbers})
    else:
        for direction in directions:
            show_direction(direction)
        if tuned is not None:
            show_tuned(tuned, json=False)
        show_applied(applied)
        show_check(checked)
    _next(model, applied)


def _explain(model: "Model", enhancement: "Enhancement", folder: Path, specialities: "list[Speciality] | None") -> None:
    from burnish.explaining.explaining import explain
    from burnish.explaining.publishing import publish

    measured = read_numbers(folder, None, scaled=False)
    with console.progress() as progress:
        facts = explain(model, enhancement, specialities=specialities, progress=progress, **measured)
    console.say(f"Written: {publish(facts, folder)}, and figures in the model card")


def _check(gains: GainOptions, finding: FindOptions, aim: AimOptions, size: LayerOptions, *, page: bool) -> None:
    """Wrong calls, before anything is read. Raises InputError."""
    processes = launched().count
    if processes > 1 and (page or gains.enhancement_factor == "auto"):
        raise InputError(
            f"--enhancement-factor auto and --page run in one process, and this is one of {processes}. Pass a factor such as 0.5 and no "
            "--page, or start it without torchrun."
        )
    if size.layer_by_layer and (page or gains.enhancement_factor == "auto"):
        raise InputError(
            "--enhancement-factor auto and --page run the whole model many times, which layer by layer would read all weights "
            "each time. Pass a factor such as 0.5 and no --page with --layer-by-layer."
        )
    if gains.enhancement_factor != "auto":
        _ = gains.factor
        if aim != AimOptions():
            raise InputError(
                "--references, --pairs, --expert and --judge-... say what auto aims at. Pass --enhancement-factor auto with them."
            )
    elif replace(finding, seed=0, force=False) != FindOptions():
        raise InputError(
            "With --enhancement-factor auto the directions are chosen too: leave out --scope, --site, --position, --protect, "
            "--layer-idx and --instructions, or use `burnish tune --basis`."
        )


def _found(
    model: "Model", contrasts: "list[tuple[float, Contrast]]", gains: GainOptions, finding: FindOptions
) -> "tuple[Enhancement, list[Direction]]":
    """The directions of all specialities as one enhancement, each with the factor times its weight."""
    from burnish.pipeline import require_direction

    directions, enhancement = [], None
    for weight, contrast in contrasts:
        direction = run_find(model, contrast, finding)
        require_direction(direction, force=finding.force)
        own = direction.enhancement(checked_factor(gains.factor * weight), layers=gains.layers)
        enhancement = own if enhancement is None else enhancement.combined(own)
        directions.append(direction)
    assert enhancement is not None
    return enhancement, directions


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


def _next(model: str, applied: "Applied") -> None:
    from burnish.artifacts.files import PLAN_FILE

    hint_use(model, applied)
    if applied.form in FOLDERS:
        console.hint(f"burnish chat {model} --with {applied.out / PLAN_FILE} --compare")


def hint_use(model: str, applied: "Applied") -> None:
    """What to do with what was written."""
    uses = {
        "model": f"burnish verify {model} {applied.out}",
        "enhancement": f"burnish chat {model} --with {applied.out} --compare",
        "gguf": f"llama-cli -m {applied.out}",
        "gguf-lora": f"llama-server -m {model} --lora {applied.out}",
        "gguf-control-vector": f"llama-cli -m MODEL.gguf --control-vector {applied.out}",
    }
    if applied.form in uses:
        console.hint(uses[applied.form])
