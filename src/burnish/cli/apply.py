"""`burnish apply`: a direction or enhancement file -> a model, an adapter, or another enhancement file."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.enhance import applied_summary, hint_use, show_applied, show_check
from burnish.cli.find import show_plan
from burnish.cli.flags import Loading, Output
from burnish.cli.inputs import DryRun, Json, Layers, ModelName, WithFactor, closing_check
from burnish.cli.opening import open_model
from burnish.cli.run import current_recipe
from burnish.errors import InputError
from burnish.forms import form_of
from burnish.mix import Mix
from burnish.options import GainOptions, ModelOptions, OutputOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from burnish.artifacts.copying import FolderCopy
    from burnish.artifacts.direction import Enhancement
    from burnish.checking import Check
    from burnish.forms.base import Applied


def _again(
    model: str, folder: Path, output: OutputOptions, factor: float | None, loading: ModelOptions, *, json: bool
) -> None:
    """Writes a trained folder once more, its direction `factor` times as strong."""
    from burnish.hybrid.result import read_trained

    trained = read_trained(folder)
    with console.progress() as progress:
        applied = (trained if factor is None else trained.scaled(factor)).export(
            output.out,
            form=output.form,
            model=model,
            overwrite=output.overwrite,
            options=loading,
            progress=progress,
            recipe=current_recipe(),
        )
    _show(applied, model, None, json=json)


@contextmanager
def _early_copy(
    model: str, output: OutputOptions, loading: ModelOptions, *, wanted: bool
) -> "Iterator[FolderCopy | None]":
    """Starts copying the model while torch is still being loaded, where nothing stands in the way.

    Whatever turns out to be wrong afterwards removes the copy again; a partial output of an earlier run is left to be resumed.
    """
    from burnish.artifacts.copying import FolderCopy, copied_bytes
    from burnish.artifacts.files import check_output, disk_errors, overlapping, partial_of
    from burnish.model.source import resolve

    if not wanted or not form_of(output.form).copies:
        yield None
        return
    folder = resolve(model, revision=loading.revision)
    if partial_of(output.out).exists() or overlapping(folder, output.out):
        yield None
        return
    check_output(output.out, copied_bytes(folder), overwrite=output.overwrite)
    with disk_errors(output.out):
        copy = FolderCopy(folder, output.out)
    with copy:
        copy.start()
        yield copy


def apply(
    model: ModelName,
    plan_file: Annotated[
        Path,
        Parameter(
            help="a direction or enhancement file, an output folder or a hub id (owner/name, owner/name@revision) that holds one, or "
            "another tool's vectors (repeng's .gguf, steering-vectors' .safetensors or .pt); or a mix of the first three: '0.6 a.safetensors + 0.4 "
            "b.safetensors'"
        ),
    ],
    *,
    output: Output,
    enhancement_factor: WithFactor = None,
    layers: Layers = "all",
    force: Annotated[bool, Parameter(help="edit a model that is already enhanced", negative=())] = False,
    undo: Annotated[
        bool, Parameter(help="take the enhancement out of an output folder of form model: OUT OUT --undo", negative=())
    ] = False,
    loading: Loading = ModelOptions(),
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Write a direction or enhancement as a model, an adapter, an enhancement file, or for llama.cpp. No model is loaded, but for a mix.

    Of the output of `burnish train`, the direction's strength is changed beside the same LoRA. What a mix disturbs is measured.
    """
    from burnish.artifacts.files import is_trained
    from burnish.artifacts.hub import adapter_folder, enhancement_folder

    output = output.of_model(model)
    mixed = Mix.of_files(plan_file) is not None
    named, plan_file = plan_file, plan_file if mixed else enhancement_folder(plan_file)
    if undo and output.form != "model":
        raise InputError(f"--undo writes a model folder, and the form is {output.form}. Leave out --form.")
    if not mixed and is_trained(plan_file):
        plan_file = adapter_folder(named)
        if layers != GainOptions.layers or dry_run or undo:
            raise InputError(
                "A training's output takes only --enhancement-factor here. Leave out --layers, --undo and --dry-run."
            )
        _again(model, plan_file, output, enhancement_factor, loading, json=json)
        return
    with _early_copy(model, output, loading, wanted=not mixed and plan_file.exists() and not dry_run) as copy:
        from burnish.artifacts.foreign import is_foreign
        from burnish.pipeline import apply as write
        from burnish.pipeline import open_plan, read_enhancement, read_foreign_enhancement, undoing, write_plan

        if not mixed and is_foreign(plan_file):
            plan = open_plan(model, loading, again=force)
            enhancement = read_foreign_enhancement(plan_file, plan, enhancement_factor, layers, name=model)
        else:
            enhancement = read_enhancement(plan_file, enhancement_factor, layers)
        plan = open_plan(model, loading, again=force or undo, enhancement=enhancement, form=output.form)
        if undo:
            enhancement = undoing(plan, enhancement)
        if mixed and form_of(output.form).converts:  # whose weights a .gguf file has cannot be told
            enhancement.require(plan.checkpoint.fingerprint, plan.anatomy.layers, plan.anatomy.hidden_size)
        if dry_run or mixed:
            planned = write_plan(
                plan, output, enhancement.edited_layers(), enhancement=enhancement, name=model, recipe=current_recipe()
            )
        if dry_run:
            show_plan(vars(planned), json=json)
            return
        checked = _checked(model, enhancement, loading) if mixed else None
        with console.progress() as progress:
            applied = write(
                plan,
                enhancement,
                output,
                name=model,
                check=checked,
                copy=copy,
                progress=progress,
                recipe=current_recipe(),
            )
    _show(applied, model, checked, json=json)


def _checked(model: str, enhancement: "Enhancement", loading: ModelOptions) -> "Check":
    """What a mix disturbs: nobody has measured these gains together."""
    loaded = open_model(model, loading)
    with console.progress() as progress:
        return closing_check(loaded, enhancement, progress=progress)


def _show(applied: "Applied", model: str, checked: "Check | None", *, json: bool) -> None:
    """checked: of a mix."""
    if json:
        console.as_json({**({"check": checked.as_dict()} if checked else {}), **applied_summary(applied)})
    else:
        show_applied(applied)
        show_check(checked)
    hint_use(model, applied)
