"""`burnish apply`: a direction or enhancement file -> a model, an adapter, or another enhancement file."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.enhance import applied_summary, show_applied
from burnish.cli.find import show_plan
from burnish.cli.flags import flags
from burnish.cli.inputs import DryRun, Json, ModelName
from burnish.errors import InputError
from burnish.options import GainOptions, ModelOptions, OutputOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from burnish.artifacts.copying import FolderCopy


def _again(
    model: str, folder: Path, output: OutputOptions, factor: float | None, loading: ModelOptions, *, json: bool
) -> None:
    """Writes a trained folder once more, its direction `factor` times as strong."""
    from burnish.hybrid.result import read_trained

    found = read_trained(folder)
    with console.progress() as progress:
        applied = (found if factor is None else found.scaled(factor)).export(
            output.out, form=output.form, model=model, overwrite=output.overwrite, options=loading, progress=progress
        )
    if json:
        console.as_json(applied_summary(applied))
    else:
        show_applied(applied)
    if applied.form == "model":
        console.hint(f"burnish verify {model} {applied.out}")


@contextmanager
def _early_copy(
    model: str, output: OutputOptions, loading: ModelOptions, *, wanted: bool
) -> "Iterator[FolderCopy | None]":
    """Starts copying the model while torch is still being loaded, where nothing stands in the way.

    Whatever turns out to be wrong afterwards removes the copy again; a partial output of an earlier run is left to be resumed.
    """
    from burnish.artifacts.copying import FolderCopy, model_files
    from burnish.artifacts.files import check_output, overlapping, partial_of
    from burnish.model.source import resolve

    folder = resolve(model, revision=loading.revision)
    if not wanted or output.form != "model" or partial_of(output.out).exists() or overlapping(folder, output.out):
        yield None
        return
    check_output(output.out, sum(p.stat().st_size for p in model_files(folder)), overwrite=output.overwrite)
    with FolderCopy(folder, output.out) as copy:
        copy.start()
        yield copy


def apply(
    model: ModelName,
    plan_file: Annotated[Path, Parameter(help="a direction or enhancement file, or an output folder that holds one")],
    *,
    output: flags(OutputOptions, "Output"),  # type: ignore[valid-type]
    enhancement_factor: Annotated[
        float | None, Parameter(help="factor for a direction file; for an enhancement, a multiplier of its gains")
    ] = None,
    layers: Annotated[str, Parameter(help="layers to edit, for a direction file: all, 60%.., 10..20")] = "all",
    force: Annotated[bool, Parameter(help="edit a model that is already enhanced", negative=())] = False,
    loading: flags(ModelOptions, "Model") = ModelOptions(),  # type: ignore[valid-type]  # noqa: B008
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Write a direction or enhancement as a model, an adapter or an enhancement file. No model is loaded.

    Of the output of `burnish train`, the direction's strength is changed beside the same LoRA.
    """
    from burnish.artifacts.files import is_trained

    if is_trained(plan_file):
        if layers != GainOptions.layers or dry_run:
            raise InputError(
                "A training's output takes only --enhancement-factor here. Leave out --layers and --dry-run."
            )
        _again(model, plan_file, output, enhancement_factor, loading, json=json)
        return
    with _early_copy(model, output, loading, wanted=plan_file.exists() and not dry_run) as copy:
        from burnish.pipeline import apply as write
        from burnish.pipeline import open_plan, read_enhancement, write_plan

        enhancement = read_enhancement(plan_file, enhancement_factor, layers)
        plan = open_plan(model, loading, again=force, enhancement=enhancement)
        if dry_run:
            planned = write_plan(plan, output, enhancement.edited_layers(), rank=enhancement.rank)
            show_plan(vars(planned), json=json)
            return
        with console.progress() as progress:
            applied = write(plan, enhancement, output, name=model, copy=copy, progress=progress)
    if json:
        console.as_json(applied_summary(applied))
    else:
        show_applied(applied)
    if applied.form == "model":
        console.hint(f"burnish verify {model} {applied.out}")
