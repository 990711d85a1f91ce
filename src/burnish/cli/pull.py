"""`burnish pull`: an enhancement of the hub as a file."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.inputs import Json, Overwrite


def pull(
    repo_id: Annotated[str, Parameter(help="OWNER/NAME or OWNER/NAME@REVISION on the hub")],
    *,
    out: Annotated[Path, Parameter(alias="-o", help="file to write")],
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Fetch the enhancement of a repository on the hub as a file; nothing else of it is fetched.

    Where an enhancement is used at once, pass OWNER/NAME itself: to --with, or to `burnish apply`.
    """
    from burnish.artifacts.direction import Enhancement
    from burnish.artifacts.files import check_output
    from burnish.pushing import pull_file

    check_output(out, 0, overwrite=overwrite)
    file = pull_file(repo_id, out, overwrite=overwrite)
    model = Enhancement.load(file).provenance.model
    facts = {"repo": repo_id, "path": str(file), "bytes": file.stat().st_size, "model": model}
    console.result(facts, [str(file)], json=json)
    console.hint(f"burnish chat {model} --with {file} --compare")
