"""`burnish enhance`: the main job, from prompts to a model on disk."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.explain import own_specialities, read_numbers
from burnish.cli.find import check_layer, run_find, show_direction, show_plan, summary
from burnish.cli.flags import flags
from burnish.cli.inputs import Contrast, DryRun, Json, ModelName, PromptOptions, general_prompts, read_contrasts
from burnish.cli.layers import by_layer, estimated, in_words, open_layered
from burnish.cli.learn import read_subjects, require_learned, run_learn, show_learned, write_learned
from burnish.cli.tune import AimOptions, read_specialities, require_gains, run_tune, show_tuned, write_numbers
from burnish.errors import InputError
from burnish.model.processes import launched
from burnish.options import (
    DEFAULT_FACTOR,
    FindOptions,
    GainOptions,
    LayerOptions,
    LearnOptions,
    ModelOptions,
    OutputOptions,
    TuneOptions,
    checked_factor,
)

if TYPE_CHECKING:
    from burnish.artifacts.direction import Direction, Enhancement
    from burnish.checking import Check
    from burnish.learning.learning import Learned
    from burnish.learning.subject import Subject
    from burnish.model.model import Model
    from burnish.model.planning import FolderPlan
    from burnish.pipeline import Applied
    from burnish.tuning.material import Speciality
    from burnish.tuning.tuning import Tuned

CHECK_PROMPTS = 24
FOLDERS = ("model", "adapter")  # forms that are folders; the others are one file
DIRECTIONS = 2  # a layer, for each speciality whose gains are tuned
Method = Literal["learned", "gains", "published"]


def enhance(
    model: ModelName,
    *,
    output: flags(OutputOptions, "Output"),  # type: ignore[valid-type]
    prompts: PromptOptions | None = None,
    method: Annotated[
        Method | None,
        Parameter(
            help="learned: directions and gains from the model under an expert's prompt (the default); gains: contrast directions with "
            "tuned gains (the default for prompt files alone); published: one contrast direction, factor 1.5",
            group="Strength",
        ),
    ] = None,
    gains: flags(GainOptions, "Strength") = GainOptions(),  # type: ignore[valid-type]  # noqa: B008
    budget: Annotated[
        float | None,
        Parameter(
            help="nats per token that everyday prompts may move: 0.03 for learned, 0.01 for gains",
            group="Strength",
        ),
    ] = None,
    steps: Annotated[
        int, Parameter(help="with learned: steps of the optimiser", group="Strength")
    ] = LearnOptions.steps,
    directions: Annotated[int, Parameter(help="with learned: directions a layer", group="Strength")] = (
        LearnOptions.directions
    ),
    guidance: Annotated[
        float, Parameter(help="with learned: 1 is as the expert's prompt, above 1 beyond it", group="Strength")
    ] = LearnOptions.guidance,
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
    """Make a model answer as under an expert's system prompt, without the prompt: learn directions, strengthen, write, measure.

    With --method gains or published, and with a factor, directions are found as a contrast of prompts.
    """
    from burnish.artifacts.files import PLAN_FILE
    from burnish.checking import check
    from burnish.model.model import load
    from burnish.model.processes import current
    from burnish.options import layer_window
    from burnish.pipeline import apply, open_plan, write_plan

    prompts, aim, output = prompts or PromptOptions(), aim or AimOptions(), output.of_model(model)
    how = chosen_method(method, gains, prompts, aim, finding)
    gains = replace(gains, enhancement_factor=DEFAULT_FACTOR) if how == "published" and gains.auto else gains
    learns, tunes = how == "learned", how == "gains"
    _check(gains, how, finding, aim, size, page=page)
    if loading.tensor_parallel and output.form == "gguf-control-vector":
        raise InputError(
            "Form gguf-control-vector runs the model while it writes, and one process alone holds a part of each layer. Leave out "
            "--tensor-parallel, or write --form enhancement and `burnish apply` it in one process."
        )
    if page and output.form not in FOLDERS:
        raise InputError(
            f"--page writes into an output folder, and form {output.form} is one file. Use `burnish explain MODEL --with FILE -o page.html`."
        )
    learning = LearnOptions(
        budget=LearnOptions.budget if budget is None else budget,
        layers=gains.layers,
        steps=steps,
        directions=directions,
        guidance=guidance,
        seed=finding.seed,
    )
    tuning = TuneOptions(
        budget=TuneOptions.budget if budget is None else budget, window=gains.layers, seed=finding.seed
    )
    subjects = read_subjects(prompts, aim, finding.seed) if learns else []
    specialities = read_specialities(prompts, aim, finding.seed) if tunes else []
    contrasts = [] if learns or tunes else read_contrasts(prompts, finding.position)
    general = general_prompts(specialities) if tunes else contrasts[0][1].general if contrasts else None
    with console.waiting(f"Opening {model} (a first use fetches and converts it)"), current().one_ahead():
        plan = open_plan(model, loading, again=finding.force)
    check_layer(finding, plan.anatomy.layers)
    window = layer_window(gains.layers, plan.anatomy.layers)
    rank = directions if learns else DIRECTIONS * len(specialities) if tunes else len(contrasts)
    planned = write_plan(plan, output, list(window) if learns or tunes or gains.factor else [], rank=rank)
    strength = {
        "learned": f"{directions} learnt directions a layer within {learning.budget:g} nats per token",
        "gains": f"gains chosen within {tuning.budget:g} nats per token",
    }.get(how) or f"factor {gains.factor:g}"
    console.say(f"Plan: {plan.anatomy.coverage()}; editing layers {window.start}-{window.stop - 1} with {strength}.")
    fixed = how == "published" and not page
    layered = open_layered(model, loading, size) if fixed and by_layer(plan, loading, size) else None
    cost = estimated(layered, [contrast for _, contrast in contrasts], finding) if layered else None
    if learns:
        console.say(f"Learning takes {learning_time(plan, subjects, learning)}.")
    if dry_run:
        show_plan(vars(planned), cost, json=json)
        return
    if cost is not None:
        console.say(f"Layer by layer: {in_words(cost)}. The closing check needs the whole model and is left out.")
        check_prompts = 0
    with console.waiting(f"Loading {model}"):
        loaded = layered or load(model, loading)
    tuned: Tuned | None = None
    learned: Learned | None = None
    found: list[Direction] = []
    if learns:
        learned = run_learn(loaded, subjects, learning)
        enhancement = learned.enhancement
        if learned.abstained:
            show_learned(learned, json=json)
            require_learned(learned)
    elif tunes:
        tuned = run_tune(loaded, specialities, aim, tuning)
        enhancement = tuned.enhancement
        if tuned.abstained:
            show_tuned(tuned, json=json)
            require_gains(tuned)
    else:
        enhancement, found = _found(loaded, contrasts, gains, finding)
    first = current().first
    if not (first or loaded.tensor_parallel):
        return
    with console.progress() as progress:
        checked = None if learned is None else learned.check
        if checked is None and check_prompts and general is not None:
            checked = check(loaded, enhancement, general.spread(check_prompts), progress=progress)
        if not first:  # it held its part of the layers while they were checked
            return
        applied = apply(plan, enhancement, output, name=model, check=checked, loaded=loaded, progress=progress)
    home = applied.out / Path(PLAN_FILE).parent
    if learned is not None and applied.form in FOLDERS:
        write_learned(home, learned)
        console.say(f"Page: {write_page(loaded, learned, subjects, home)}")
    if tuned is not None and applied.form in FOLDERS:
        write_numbers(home, tuned)
    if page and learned is None:
        _explain(loaded, enhancement, applied.out, own_specialities(prompts, aim, finding.seed))
    if json:
        from burnish.learning.tables import learned_summary
        from burnish.tuning.tables import tuned_summary

        listed = [summary(d) for d in found]
        described: dict[str, Any] = (
            {"direction": listed[0]} if len(listed) == 1 else {"directions": listed} if listed else {}
        )
        if tuned is not None:
            described["tuned"] = tuned_summary(tuned)
        if learned is not None:
            described["learned"] = learned_summary(learned)
        numbers = {"check": checked.as_dict() if checked else None, **applied_summary(applied)}
        console.as_json({**described, **numbers})
    else:
        for direction in found:
            show_direction(direction)
        if tuned is not None:
            show_tuned(tuned, json=False)
        show_applied(applied)
        if learned is not None:
            show_learned(learned, json=False)
        else:
            show_check(checked)
    _next(model, applied)


def chosen_method(
    method: Method | None, gains: GainOptions, prompts: PromptOptions, aim: AimOptions, finding: FindOptions
) -> Method:
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
                "--instructions, or use `burnish tune --basis`."
            )
        return method
    if not gains.auto or replace(finding, seed=0, force=False) != FindOptions():
        return "published"  # how a contrast direction is found says that one is wanted
    aims_at_gains = aim.pairs is not None or aim.judge_url is not None
    if prompts.enhance is not None and aim.expert is None and aim.references is None and not aims_at_gains:
        console.say(
            "Note: prompts alone have no teacher, so contrast directions with tuned gains are used. --expert 'You are ...', or a few good "
            "answers (--references), would do more."
        )
        return "gains"
    return "gains" if aims_at_gains else "learned"


def learning_time(plan: "FolderPlan", subjects: "list[Subject]", options: LearnOptions) -> str:
    """Tokens and minutes in words."""
    import torch

    from burnish.learning.cost import learning_cost

    parameters = sum(p.numel() for p in plan.network.parameters())
    asked = plan.options.dtype
    dtype: torch.dtype = next(plan.network.parameters()).dtype if asked == "auto" else getattr(torch, asked)
    return str(learning_cost(subjects, options, parameters, dtype))


def write_page(model: "Model", learned: "Learned", subjects: "list[Subject]", folder: Path) -> Path:
    """The page beside the numbers: what the directions write and when they act, answers side by side, effect and cost."""
    from burnish.artifacts.files import written
    from burnish.explaining.learned_page import learned_facts, render_learned

    with written(folder / "page.html", overwrite=True) as partial:
        partial.write_text(
            render_learned(learned, learned_facts(model, learned.enhancement, subjects)), encoding="utf-8"
        )
    return folder / "page.html"


def _explain(model: "Model", enhancement: "Enhancement", folder: Path, specialities: "list[Speciality] | None") -> None:
    from burnish.explaining.explaining import explain
    from burnish.explaining.publishing import publish

    measured = read_numbers(folder, None, scaled=False)
    with console.progress() as progress:
        facts = explain(model, enhancement, specialities=specialities, progress=progress, **measured)
    console.say(f"Written: {publish(facts, folder)}, and figures in the model card")


def _check(
    gains: GainOptions, method: Method, finding: FindOptions, aim: AimOptions, size: LayerOptions, *, page: bool
) -> None:
    """Wrong calls, before anything is read. Raises InputError."""
    processes = launched().count
    whole = "--page" if page else f"--method {method}" if method != "published" else ""
    if processes > 1 and whole:
        raise InputError(
            f"{whole} runs in one process, and this is one of {processes}. Pass a factor such as 0.5 and no --page, or start it "
            "without torchrun."
        )
    if size.layer_by_layer and whole:
        raise InputError(
            f"{whole} runs the whole model many times, which layer by layer would read all weights each time. Pass a factor such as "
            "0.5 and no --page with --layer-by-layer."
        )
    if method == "published":
        _ = gains.factor
        if aim != AimOptions():
            raise InputError(
                "--references, --pairs, --expert and --judge-... say what is learnt or tuned. Leave out --method published and the factor "
                "with them."
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
