"""`burnish train`: a short LoRA fine-tune, alone or combined with an enhancement."""

from dataclasses import asdict, replace
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.flags import Loading, Training
from burnish.cli.inputs import CHECK_PROMPTS, ROWS, DryRun, Json, ModelName, Overwrite, With, WithFactor
from burnish.cli.opening import open_model
from burnish.cli.run import current_recipe
from burnish.extras import require
from burnish.forms import form_help
from burnish.options import Combine, FormName, ModelOptions, OutputOptions, TrainOptions

if TYPE_CHECKING:
    from burnish.forms.base import Applied
    from burnish.hybrid.result import Trained
    from burnish.hybrid.training import Prepared
    from burnish.model.folder_plan import FolderPlan
    from burnish.model.forecast import Forecast


def train(
    model: ModelName,
    *,
    out: Annotated[Path, Parameter(alias="-o", help="output folder", group="Output")],
    form: Annotated[FormName, Parameter(help=form_help(trained=True), show_choices=False, group="Output")] = "adapter",
    overwrite: Overwrite = False,
    data: Annotated[
        Path | None,
        Parameter(help=f"rows to learn: prompt and completion, messages, or prompt, chosen, rejected ({ROWS})"),
    ] = None,
    knowledge: Annotated[Path | None, Parameter(help="rows of facts, mixed with those of --data")] = None,
    enhancement: With = None,
    enhancement_factor: WithFactor = None,
    combine: Annotated[
        Combine | None,
        Parameter(
            help="keep: the enhancement stays underneath the LoRA (with --with the default); protect: and the LoRA writes nothing along "
            "it; plain: a LoRA alone"
        ),
    ] = None,
    options: Training = TrainOptions(),
    loading: Loading = ModelOptions(),
    check_prompts: Annotated[
        int, Parameter(help="general prompts of the closing check; 0 leaves it out")
    ] = CHECK_PROMPTS,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Train a LoRA for what a direction cannot bring, such as new facts; alone, or keeping or protecting a direction.

    A killed training goes on from its last checkpoint (in OUT.training) when the same command is given again.
    """
    require("train", "Training")
    from burnish.hybrid.result import expected_of, training_form
    from burnish.hybrid.rows import as_rows

    writing = training_form(form)

    rows = None if data is None else as_rows(data)
    facts = None if knowledge is None else as_rows(knowledge)
    from accelerate import PartialState

    from burnish.hybrid.training import prepare, train_prepared
    from burnish.hybrid.training_work import training_work
    from burnish.model.forecast import forecast
    from burnish.model.model import outline
    from burnish.pipeline import open_plan, read_enhancement

    plan_file = read_enhancement(enhancement, enhancement_factor, "all") if enhancement else None
    with console.waiting(f"Opening {model} (a first use fetches and converts it)"):
        plan = open_plan(model, loading, again=True)
        loading = _loading(loading, plan)
        drawn = outline(model, loading)
        prepared = prepare(drawn, rows, knowledge=facts, enhancement=plan_file, combine=combine, options=options)
    expected = expected_of(prepared.maps, options.rank, plan_file)
    size = writing.planned(plan, OutputOptions(out, form, overwrite), expected).bytes
    estimate = forecast(drawn, training_work(prepared), loading)
    show_plan(prepared, size, estimate, json=json and dry_run, talk=not dry_run)
    if dry_run:
        return
    loaded = open_model(model, loading)
    checkpoints = out.with_name(out.name + ".training")
    with console.progress() as progress:
        trained = train_prepared(
            loaded, prepared, checkpoints=checkpoints, check_prompts=check_prompts, progress=progress
        )
        if not PartialState().is_main_process:  # started by `accelerate launch`: one process writes
            return
        applied = trained.export(
            out,
            form=form,
            model=model,
            overwrite=overwrite,
            options=loading,
            progress=progress,
            recipe=current_recipe(),
        )
    rmtree(checkpoints)  # of no use once the result is in place
    if json:
        console.as_json(
            {
                "out": str(applied.out),
                "form": applied.form,
                "bytes": applied.bytes,
                "check": trained.check,
                **trained.record,
            }
        )
    else:
        show_trained(trained, applied)
    if use := writing.hint(model, applied.out):
        console.hint(use)
    if trained.enhancement is not None:
        console.hint(f"burnish apply {model} {applied.out} --enhancement-factor 0.5 -o OUT")


def _loading(loading: ModelOptions, plan: "FolderPlan") -> ModelOptions:
    """On a CPU weights are float32 unless a type was asked for: in a half type small steps would be rounded away."""
    device = plan.choice.options.device
    return replace(
        loading, device=device, dtype="float32" if loading.dtype == "auto" and device == "cpu" else loading.dtype
    )


def show_plan(prepared: "Prepared", size: int, estimate: "Forecast", *, json: bool, talk: bool) -> None:
    """What would be trained."""
    from burnish.hybrid.tokenised import tokens_in

    pools = [len(pool) for pool in prepared.pools]
    if json:
        numbers: dict[str, Any] = {
            "combine": prepared.combine,
            "style_rows": pools[0],
            "knowledge_rows": pools[1],
            "held_out_rows": len(prepared.held_out),
            "maps": len(prepared.maps),
            "bytes": size,
            "steps": prepared.steps,
            "tokens": tokens_in(prepared.items),
            "trained": prepared.trained,
            "estimate": asdict(estimate),
        }
        console.as_json(numbers)
        return
    line = console.say if talk else console.data
    line(
        f"Plan: {prepared.combine}; {pools[0]} style and {pools[1]} knowledge rows, {len(prepared.held_out)} held out; {prepared.steps} steps "
        f"of {prepared.options.batch} rows; LoRA of rank {prepared.options.rank} in {len(prepared.maps)} maps."
    )
    line(
        f"{tokens_in(prepared.items):,} tokens are read and {prepared.trained:,} numbers trained; {size:,} bytes are written. "
        f"Estimate: {estimate}."
    )


def show_trained(trained: "Trained", applied: "Applied") -> None:
    """What was learnt and written, in a few lines."""
    record = trained.record
    if record["held_out_after"] is not None:
        early = f" (stopped early after {record['steps']} steps)" if record["stopped_early"] else ""
        console.data(f"Held-out loss: {record['held_out_before']:.3f} -> {record['held_out_after']:.3f}{early}")
    if (moved := record["everyday_kl"]) is not None:
        interval = f"[{moved['low']:.4f}, {moved['high']:.4f}]"
        console.data(f"Everyday prompts moved by {moved['mean']:.4f} {interval} nats per token, {_against(record)}")
    console.data(f"Written: {applied.out} ({applied.form}, {applied.bytes:,} bytes)")
    if trained.check is not None:
        console.data(f"Check: {trained.check['verdict']}")


def _against(record: dict[str, Any]) -> str:
    """The budget, and what was done to stay within it."""
    budget = f"budget {record['budget']:g}"
    if record["everyday_kl"]["high"] > record["budget"]:
        return f"not surely within the {budget}: train longer, or start from a weaker direction"
    if record["scale"] == 0:
        return f"{budget}; nothing of the LoRA fits into that and none of it is left: raise --budget or lower --learning-rate"
    return budget + (f"; the LoRA was scaled to {record['scale']:.2f} for that" if record["scale"] != 1 else "")
