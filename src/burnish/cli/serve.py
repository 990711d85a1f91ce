"""`burnish serve`: one model with many enhancements, for OpenAI's clients and for a browser."""

import logging
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.find import show_plan
from burnish.cli.flags import Limits, Loading
from burnish.cli.inputs import DryRun, ModelName
from burnish.cli.opening import expected, open_model
from burnish.extras import require
from burnish.options import ModelOptions, ServeOptions

if TYPE_CHECKING:
    from burnish.model.forecast import Work
    from burnish.model.model import Model
    from burnish.personal.store import Store


def serve(
    model: ModelName,
    *,
    enhancement: Annotated[
        tuple[str, ...],
        Parameter(name="--with", help="enhancement file, folder or hub id, also as NAME=PATH; repeatable", negative=()),
    ] = (),
    host: Annotated[str, Parameter(help="address to listen on; any but this computer's own needs keys")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="port to listen on; 0 takes a free one")] = 8711,
    keys: Annotated[bool, Parameter(help="ask for keys on this computer too", negative=())] = False,
    new_person: Annotated[
        bool, Parameter(help="make a new person, whose key is shown once, and ask for keys", negative=())
    ] = False,
    api_key_file: Annotated[
        Path | None, Parameter(help="file with a person's key; made with a new one where there is none")
    ] = None,
    no_profiles: Annotated[
        bool, Parameter(help="start at once, without packaged names and profiles", negative=())
    ] = False,
    loading: Loading = ModelOptions(),
    limits: Limits = ServeOptions(),
    dry_run: DryRun = False,
) -> None:
    """Serve a model with enhancements by name, as OpenAI's interface and a page."""
    require("serve", "Serving")
    from burnish.personal.store import Store
    from burnish.server.access import Access, loopback
    from burnish.server.application import make_app
    from burnish.server.directions import prepare, read_enhancements, serving_work
    from burnish.server.service import Service
    from burnish.server.serving import Server, address, listen

    store = Store()
    enhancements = read_enhancements(enhancement)
    asked = keys or new_person or api_key_file is not None or not loopback(host)

    def work(drawn: "Model") -> "Work":
        return serving_work(drawn, limits, profiles=not no_profiles)

    if dry_run:
        show_plan({"host": host, "port": port}, estimate=expected(model, loading, work, talk=False), json=False)
        return
    with closing(listen(host, port)) as sock:
        expected(model, loading, work)
        if asked:
            _keys(store, new_person, api_key_file)
        loaded = open_model(model, loading)
        with console.progress() as progress:
            directions = prepare(loaded, enhancements, profiles=not no_profiles, progress=progress)
        _log_to_console()
        service = Service(loaded, directions, store, limits)
        console.data(address(sock))
        console.hint(f"open {address(sock)} in a browser, or point an OpenAI client at {address(sock)}/v1")
        with suppress(KeyboardInterrupt):  # raised again once everything is finished
            Server(make_app(service, Access(host, asked)), service).run([sock])
    console.say("Stopped.")


def _keys(store: "Store", new_person: bool, file: Path | None) -> None:
    """Makes a person where one is asked for or there is none yet. The key is shown once, or written to the file.

    Raises InputError for a file whose key belongs to nobody.
    """
    from burnish.artifacts.files import written

    if file is not None and file.exists():
        store.person_of(file.read_text(encoding="utf-8", errors="replace").strip())  # other bytes are nobody's key
    elif file is not None or new_person or not store.anyone():
        person, key = store.new_person()
        if file is not None:
            with written(file, overwrite=False) as partial:
                partial.touch(mode=0o600)
                partial.write_text(key + "\n", encoding="utf-8")
            console.say(f"A key of the new person {person} is in {file}.")
        else:
            console.say(f"A new person, {person}. Their key is shown now and never again:\n{key}")


def _log_to_console() -> None:
    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.say(self.format(record))

    handler = Lines()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    for name in ("burnish.server", "uvicorn.error"):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.WARNING)
