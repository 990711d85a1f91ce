"""`burnish verify`: what differs between a model and its enhanced copy, from their bytes alone."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.flags import flags
from burnish.cli.inputs import Json, ModelName
from burnish.options import ModelOptions


def verify(
    base: ModelName,
    enhanced: Annotated[str, Parameter(help="the enhanced model folder")],
    *,
    loading: flags(ModelOptions, "Model") = ModelOptions(),  # type: ignore[valid-type]  # noqa: B008
    json: Json = False,
) -> int:
    """Recover direction and gain per layer, realised against asked, and check that everything else is identical."""
    from burnish.inspecting import verify_folders

    with console.progress() as progress:
        found = verify_folders(base, enhanced, loading, progress=progress)
    if json:
        console.as_json({"clean": found.clean, **asdict(found)})
    else:
        for layer in found.edited:
            asked = "" if layer.asked is None else f", asked {', '.join(f'{a:.4f}' for a in layer.asked)}"
            realised = "" if layer.realised is None else f", realised {', '.join(f'{r:.4f}' for r in layer.realised)}"
            console.data(
                f"layer {layer.layer}: gain {layer.gain:.4f}{asked}{realised}; one direction explains {layer.share:.1%} of the change"
            )
        console.data(
            f"{len(found.edited)} projections changed, {found.identical} tensors identical, directions agree across layers to "
            f"|cosine| {found.cosine_between_layers:.4f}"
        )
        if found.trained:
            console.data(
                f"{len(found.trained)} tensors more are changed as the folder's own record of its training says, byte for byte"
            )
        console.data(
            "Everything else is identical."
            if found.clean
            else f"Also changed: {', '.join(found.changed_elsewhere[:10])} ({len(found.changed_elsewhere)} in all)"
        )
    return 0 if found.clean else 6
