"""`burnish push`: an output on the hub."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.inputs import Json
from burnish.forms import form_of

if TYPE_CHECKING:
    from burnish.publication import Publication


def push(
    path: Annotated[Path, Parameter(help="an output folder (model or adapter), or an enhancement file")],
    repo_id: Annotated[str, Parameter(help="OWNER/NAME on the hub; made where it does not exist")],
    *,
    public: Annotated[
        bool, Parameter(help="for everyone to see; by default a new repository is private", negative=())
    ] = False,
    revision: Annotated[str | None, Parameter(help="branch, made where it is missing; by default main")] = None,
    message: Annotated[str | None, Parameter(help="of the commit")] = None,
    base: Annotated[
        str | None, Parameter(help="hub id of the base model, where it was a local folder when the output was made")
    ] = None,
    dry_run: Annotated[
        bool, Parameter(help="print files, sizes, target and visibility, and stop; nobody is contacted", negative=())
    ] = False,
    json: Json = False,
) -> None:
    """Publish a model, an adapter or an enhancement on the hub, with card, licence and figures; private unless --public.

    The token comes from HF_TOKEN or from `hf auth login`; it is never an argument.
    """
    from burnish.artifacts.files import is_trained
    from burnish.pushing import MAIN, check_target, plan_push, send

    check_target(repo_id)
    publication = plan_push(path, base=base, ask=not dry_run)
    plan = {"repo": repo_id, "revision": revision or MAIN, "public": public, **_plan(publication)}
    if dry_run:
        console.result({"dry_run": True, **plan}, _lines(publication, plan), json=json)
        return
    for line in _lines(publication, plan):
        console.say(line)
    pushed = send(publication, repo_id, public=public, revision=revision, message=message)
    console.result({**plan, **asdict(pushed)}, [pushed.url], json=json)
    if form_of(publication.form).copies:
        console.hint(f"burnish chat {repo_id}")
    elif not is_trained(path):  # a training is more than its enhancement
        console.hint(f"burnish chat {publication.base} --with {repo_id}")


def _plan(publication: "Publication") -> dict[str, Any]:
    return {
        "kind": publication.form,
        "base": publication.base,
        "licence": publication.licence,
        "files": [{"name": file.name, "bytes": file.bytes} for file in publication.files],
        "left_out": list(publication.left_out),
        "bytes": publication.bytes,
    }


def _lines(publication: "Publication", plan: dict[str, Any]) -> list[str]:
    licence = publication.licence or "unknown (the base model's card states none that was read; its terms apply)"
    seen = "public if new or public already" if plan["public"] else "private"
    lines = [f"{file.bytes:>15,}  {file.name}" for file in publication.files]
    lines += [f"left out: {name} (hidden, or weights that are not safetensors)" for name in publication.left_out]
    return [
        *lines,
        f"{publication.bytes:>15,}  bytes in {len(publication.files)} files: {publication.form} of {publication.base}",
        f"Licence: {licence}",
        f"To: {plan['repo']}, branch {plan['revision']}, {seen}",
    ]
