"""`burnish verify`: what differs between a model and its enhanced copy, from their bytes alone."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.flags import Loading
from burnish.cli.inputs import Json, ModelName
from burnish.options import ModelOptions

SHOWN = 10  # other changed tensors and files that are named


def verify(
    base: ModelName,
    enhanced: Annotated[str, Parameter(help="the enhanced model folder")],
    *,
    loading: Loading = ModelOptions(),
    json: Json = False,
) -> int:
    """Recover the gains of every layer, realised against asked, and check that everything else is identical."""
    from burnish.inspecting import verify_folders

    with console.progress() as progress:
        verification = verify_folders(base, enhanced, loading, progress=progress)
    if json:
        console.as_json({"clean": verification.clean, **asdict(verification)})
        return 0 if verification.clean else 6
    for layer in verification.edited:
        parts = [
            f"{name} {_gains(gains)}" for name, gains in (("asked", layer.asked), ("realised", layer.realised)) if gains
        ]
        recovered = (
            f"gain{'s' * (len(layer.gains) > 1)} {_gains(layer.gains)}" if layer.gains else "no gains along directions"
        )
        left = f"{layer.unexplained:.1%} of the change is unexplained"
        console.data(f"layer {layer.layer}: {', '.join([recovered, *parts])}; {left}")
    agreement = (
        ""
        if verification.agreement is None
        else f", directions agree across layers to |cosine| {verification.agreement:.4f}"
    )
    console.data(
        f"{len(verification.edited)} projections changed, {verification.identical} tensors identical{agreement}"
    )
    if verification.trained:
        console.data(
            f"{len(verification.trained)} tensors more are changed as the folder's own record of its training says, byte for byte"
        )
    console.data(
        "Everything else is identical."
        if verification.clean
        else f"Also changed: {', '.join(verification.changed_elsewhere[:SHOWN])} ({len(verification.changed_elsewhere)} in all)"
    )
    return 0 if verification.clean else 6


def _gains(gains: "tuple[float, ...] | list[float]") -> str:
    return ", ".join(f"{gain:.4f}" for gain in gains)
