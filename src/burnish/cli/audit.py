"""`burnish audit`: what was done to a model, as text lines for people and a dictionary for programs."""

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.flags import Loading
from burnish.cli.inputs import Json, ModelName
from burnish.cli.opening import open_model
from burnish.options import ModelOptions

if TYPE_CHECKING:
    from burnish.artifacts.audit import Audit, AuditedProjection
    from burnish.artifacts.differences import ChangedFile, ChangedTensor
    from burnish.artifacts.matching import Matches, NameMatch

NAMES = 6  # known directions that are listed, closest first
SHOWN = 20  # changed tensors and files that are listed by name; --json has them all


def audit(
    base: ModelName,
    other: Annotated[str, Parameter(help="another checkpoint of the same shape")],
    *,
    known: Annotated[
        Path | None,
        Parameter(name="--with", help="a direction or enhancement file, or an output folder, to compare with"),
    ] = None,
    named: Annotated[
        bool, Parameter(help="compare with every packaged domain and style axis, found on BASE", negative=())
    ] = False,
    loading: Loading = ModelOptions(),
    json: Json = False,
) -> None:
    """Find out from two checkpoints alone what was done to a model: gains along directions, a merged LoRA, a fine-tune."""
    from burnish.inspecting import audit_folders, known_vectors

    vectors = known_vectors(known) if known is not None else {}
    with console.progress() as progress:
        audited, matches = audit_folders(base, other, loading, known=vectors, progress=progress)
        if named and audited.of("directional"):
            matches = matches.joined(_named(base, audited, loading, progress))
    show_audit(audited, matches, json)
    if not json:
        console.hint(f"burnish audit {base} {other} --named" if not named else f"burnish verify {base} {other}")


def _named(base: str, audit: "Audit", loading: ModelOptions, progress: Any) -> "Matches":
    """The audited directions beside the packaged ones of the base, which is loaded for it."""
    from burnish.artifacts.matching import match, nearest_layers
    from burnish.catalogue import named_directions, names_in
    from burnish.languages import languages

    model = open_model(base, loading)
    vectors: dict[str, Any] = {}
    for site in ("residual", "attention"):
        for language in languages():
            directions = named_directions(model, names_in(language), site=site, progress=progress)
            vectors |= {f"{name} ({site})": direction.vectors for name, direction in directions.items()}
    return match(audit, nearest_layers(audit, vectors))


def show_audit(audit: "Audit", matches: "Matches", json: bool) -> None:
    """Prints the audit: the summary first, then what it rests on."""
    console.result(audit_dict(audit, matches), audit_lines(audit, matches), json=json)


def audit_dict(audit: "Audit", matches: "Matches") -> dict[str, Any]:
    """The audit as JSON; sizes relative to zero are null."""
    return {
        "kind": audit.kind,
        "summary": audit.summary,
        "agreement": audit.agreement,
        "identical": audit.identical,
        "projections": [_projection_dict(p) for p in audit.projections],
        "tensors": [{**asdict(t), "relative_size": _finite(t.relative_size)} for t in audit.tensors],
        "files": [asdict(f) for f in audit.files],
        "matches": asdict(matches),
    }


def audit_lines(audit: "Audit", matches: "Matches") -> list[str]:
    """The audit as text."""
    lines = [audit.summary[0].upper() + audit.summary[1:] + "."]
    lines += [_name_text(name, matches) for name in matches.names[:NAMES]]
    left = len(matches.names) - NAMES
    lines += [f"... and {left} names less close (--json lists all)"] if left > 0 else []
    best = {layer.tensor: layer for layer in matches.layers}
    for entry in audit.projections:
        if entry.change.kind != "none":
            closest = best.get(entry.tensor)
            like = f"; |cosine| {closest.cosines[closest.best]:.4f} with {closest.best}" if closest else ""
            lines.append(f"layer {entry.layer}: {_projection_text(entry)}{like}")
    untouched = len(audit.of("none"))
    if 0 < untouched < len(audit.projections):
        lines.append(f"{untouched} of {len(audit.projections)} attention output projections are unchanged")
    lines += _listed([_tensor_text(t) for t in audit.tensors]) + _listed([_file_text(f) for f in audit.files])
    return lines


def _name_text(name: "NameMatch", matches: "Matches") -> str:
    origin = " (from the folder itself)" if name.name in matches.own else ""
    return (
        f"like {name.name}{origin}: |cosine| {name.mean:.4f} on average, {name.smallest:.4f} at least, the closest in {name.best_in} of "
        f"{len(matches.layers)} projections (chance: {matches.chance:.2f})"
    )


def _projection_text(entry: "AuditedProjection") -> str:
    change = entry.change
    text: str = change.kind
    if change.kind == "directional":
        text += f", gain{'s' * (len(change.gains) > 1)} {', '.join(f'{g:.4f}' for g in change.gains)}"
        text += " (with known directions held still)" if change.held else ""
    elif change.kind == "low-rank":
        text += f", rank {change.rank}"
    elif change.kind == "dense":
        text += f", rank above {change.looked_for}"
    text += f", changed by {change.relative_size:.3%} of its size"
    if change.kind == "directional":
        text += f", {change.residual:.2%} of that squared unexplained ({change.rounding:.2%} expected from rounding)"
    return text + (", its bias did not follow" if entry.bias_follows is False else "")


def _tensor_text(tensor: "ChangedTensor") -> str:
    size = "" if tensor.relative_size is None else f" by {tensor.relative_size:.3%} of its size"
    return f"{tensor.name}: changed{size}, {tensor.share:.2%} of it differs"


def _file_text(file: "ChangedFile") -> str:
    if file.before is None:
        return f"{file.name}: new, {file.after:,} bytes"
    if file.after is None:
        return f"{file.name}: missing, {file.before:,} bytes"
    return f"{file.name}: changed, {file.before:,} bytes to {file.after:,}"


def _listed(lines: list[str]) -> list[str]:
    left = len(lines) - SHOWN
    return lines if left <= 0 else [*lines[:SHOWN], f"... and {left} more (--json lists all)"]


def _projection_dict(entry: "AuditedProjection") -> dict[str, Any]:
    change = entry.change
    return {
        "layer": entry.layer,
        "tensor": entry.tensor,
        "kind": change.kind,
        "rank": change.rank,
        "looked_for": change.looked_for,
        "gains": list(change.gains),
        "relative_size": _finite(change.relative_size),
        "residual": change.residual,
        "rounding": change.rounding,
        "held": change.held,
        "bias_follows": entry.bias_follows,
    }


def _finite(size: float | None) -> float | None:
    return size if size is not None and isfinite(size) else None
