"""`burnish enhance`: the main job, from prompts to a model on disk."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.find import check_layer, run_find, show_direction, show_plan, summary
from burnish.cli.flags import flags
from burnish.cli.inputs import DryRun, Json, ModelName, PromptOptions, read_contrast
from burnish.options import FindOptions, GainOptions, ModelOptions, OutputOptions

if TYPE_CHECKING:
    from burnish.checking import Check
    from burnish.pipeline import Applied

CHECK_PROMPTS = 24


def enhance(
    model: ModelName,
    *,
    output: flags(OutputOptions, "Output"),  # type: ignore[valid-type]
    prompts: PromptOptions | None = None,
    gains: flags(GainOptions, "Strength") = GainOptions(),  # type: ignore[valid-type]  # noqa: B008
    finding: flags(FindOptions, "Direction") = FindOptions(),  # type: ignore[valid-type]  # noqa: B008
    loading: flags(ModelOptions, "Model") = ModelOptions(),  # type: ignore[valid-type]  # noqa: B008
    check_prompts: Annotated[
        int, Parameter(help="general prompts of the closing check; 0 leaves it out")
    ] = CHECK_PROMPTS,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Find a direction, strengthen the attention output projections along it, write the result and check it."""
    from burnish.checking import check
    from burnish.model.model import load
    from burnish.options import checked_factor, layer_window
    from burnish.pipeline import apply, open_plan, require_direction, write_plan

    factor = checked_factor(gains.enhancement_factor)
    contrast = read_contrast(prompts or PromptOptions(), finding.position)
    with console.waiting(f"Opening {model} (a first use fetches and converts it)"):
        plan = open_plan(model, loading, again=finding.force)
    check_layer(finding, plan.anatomy.layers)
    window = layer_window(gains.layers, plan.anatomy.layers)
    planned = write_plan(plan, output, list(window) if factor else [])
    console.say(
        f"Plan: {plan.anatomy.coverage()}; editing layers {window.start}-{window.stop - 1} with factor {factor:g}."
    )
    if dry_run:
        show_plan(vars(planned), json=json)
        return
    with console.waiting(f"Loading {model}"):
        loaded = load(model, loading)
    direction = run_find(loaded, contrast, finding)
    require_direction(direction, force=finding.force)
    enhancement = direction.enhancement(factor, layers=gains.layers)
    with console.progress() as progress:
        checked = (
            check(loaded, enhancement, contrast.general.spread(check_prompts), progress=progress)
            if check_prompts
            else None
        )
        applied = apply(plan, enhancement, output, name=model, check=checked, progress=progress)
    result = {
        "direction": summary(direction),
        "check": checked.as_dict() if checked else None,
        **applied_summary(applied),
    }
    if json:
        console.as_json(result)
    else:
        show_direction(direction)
        show_applied(applied)
        show_check(checked)
    _next(model, applied)


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


def _next(model: str, applied: "Applied") -> None:
    from burnish.pipeline import PLAN_FILE

    if applied.form == "model":
        console.hint(f"burnish verify {model} {applied.out}")
    plan = applied.out if applied.form == "enhancement" else applied.out / PLAN_FILE
    console.hint(f"burnish chat {model} --with {plan} --compare")
