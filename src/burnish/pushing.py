"""Publishing outputs on the hub, and fetching enhancements from it."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from burnish import __version__
from burnish.artifacts.card import CARD, card_text
from burnish.artifacts.direction import Enhancement
from burnish.artifacts.files import PLAN_FILE, written
from burnish.artifacts.hub import fetch, fetch_enhancement, hub_errors, is_repo_id, parsed
from burnish.errors import HubError, InputError, ModelNotFoundError
from burnish.model.packaged import MODELS, public_name
from burnish.publication import Publication, read_publication

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MAIN = "main"


@dataclass(frozen=True)
class Pushed:
    """What became of a push."""

    url: str  # of the commit
    commit: str
    repo: str
    revision: str
    public: bool
    created: bool  # whether the repository is new


def push(
    path: Path | str,
    repo_id: str,
    *,
    public: bool = False,
    revision: str | None = None,
    message: str | None = None,
    base: str | None = None,
) -> Pushed:
    """Publishes an output folder (model or adapter) or an enhancement file on the hub, in one commit, with its card and licence.

    The token comes from HF_TOKEN or the client's own login. After an error nothing was committed.

    Args:
        path: the output.
        repo_id: `owner/name`, created where it does not exist.
        public: make it public. The visibility of an existing one is never changed, and must be as asked.
        revision: a branch, made where it is missing.
        message: of the commit.
        base: the base model's hub id, where the output was made from a local model.

    Returns:
        Where it was published.

    Raises:
        InputError: the output cannot be published.
        HubError: the hub cannot be reached, or refuses.
    """
    check_target(repo_id)
    return send(plan_push(Path(path), base=base), repo_id, public=public, revision=revision, message=message)


def check_target(repo_id: str) -> None:
    """Raises InputError for a name that no repository can have."""
    if not is_repo_id(repo_id):
        raise InputError(
            f"'{repo_id}' is no name of a repository. Pass OWNER/NAME, where OWNER is you or your organisation."
        )


def plan_push(path: Path, *, base: str | None = None, ask: bool = True) -> Publication:
    """What `push` would publish. ask: False contacts nobody, so that the licence of an enhancement's base model may be unknown.

    Raises InputError, HubError.
    """
    return read_publication(path, base=base, card_of=lambda name: _base_card(name, ask=ask), public_name=public_name)


def _base_card(name: str, *, ask: bool) -> str | None:
    """The card of a base model by its name: from its folder, the package, the client's cache or the hub. Raises HubError."""
    from huggingface_hub import try_to_load_from_cache

    local = card_text(Path(name).expanduser())
    if local is not None:
        return local
    if name in MODELS:
        model = MODELS[name]
        return f"---\nlicense: {model.licence}\nbase_model: {model.base_model}\n---\n"
    if not is_repo_id(name):
        return None
    if ask:
        try:
            return card_text(fetch(name, None, [CARD]))
        except ModelNotFoundError:
            return None
    cached = try_to_load_from_cache(name, CARD)
    return card_text(Path(cached).parent) if isinstance(cached, str) else None


def send(
    publication: Publication,
    repo_id: str,
    *,
    public: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> Pushed:
    """The second half of `push`: the repository is looked at before a byte is sent. Raises HubError."""
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    what, untouched = f"Nothing could be pushed to '{repo_id}'", "Nothing was committed."
    if get_token() is None:
        raise HubError(
            f"{what}: there is no token. Log in with `hf auth login`, or set HF_TOKEN to a token with write permission."
        )
    api = HfApi(library_name="burnish", library_version=__version__)
    branch = revision or MAIN
    with hub_errors(what, after=untouched):
        created = _open(api, repo_id, public=public)
    if created:
        untouched += " The new repository is empty."
    operations = [
        CommitOperationAdd(file.name, file.content if isinstance(file.content, bytes) else str(file.content))
        for file in publication.files
    ]
    with hub_errors(what, after=untouched):
        if branch != MAIN:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        api.preupload_lfs_files(repo_id, operations, revision=branch)
    with hub_errors(what, after="Whether the commit was made is on the repository's page."):
        done = api.create_commit(
            repo_id, operations, commit_message=message or f"Pushed with Burnish {__version__}", revision=branch
        )
    return Pushed(done.commit_url, done.oid, repo_id, branch, public, created)


def _open(api: "HfApi", repo_id: str, *, public: bool) -> bool:
    """Makes the repository where there is none; True if it did. Raises HubError for one of another visibility."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        private = api.model_info(repo_id).private
    except RepositoryNotFoundError as error:
        if error.response.status_code != 404:
            raise
        api.create_repo(repo_id, private=not public)
        return True
    if private is not True and not public:
        raise HubError(
            f"'{repo_id}' is public, and --public was not passed. Nothing was sent. Pass --public to publish, or another name."
        )
    if private is True and public:
        raise HubError(
            f"'{repo_id}' is private, and a push never changes that. Nothing was sent. Make it public in its settings, or leave out "
            "--public."
        )
    return False


def pull(repo_id: str, *, revision: str | None = None) -> Enhancement:
    """Fetches the enhancement of a repository on the hub; only its file.

    Args:
        repo_id: `owner/name`.
        revision: branch, tag or commit.

    Returns:
        The enhancement.

    Raises:
        InputError: the repository holds no enhancement.
        ModelNotFoundError: there is no such repository.
        HubError: the hub cannot be reached, or refuses.
    """
    return Enhancement.load(_pulled(repo_id, revision))


def pull_file(repo_id: str, out: Path, *, revision: str | None = None, overwrite: bool = False) -> Path:
    """Writes that enhancement as a file, byte for byte as it was pushed. Raises what `pull` raises, OutputError."""
    source = _pulled(repo_id, revision)
    Enhancement.load(source)
    with written(out, overwrite=overwrite) as partial:
        shutil.copyfile(source, partial)
    return out


def _pulled(repo_id: str, revision: str | None) -> Path:
    named = parsed(f"{repo_id}@{revision}" if revision else repo_id)
    if named is None:
        raise InputError(f"'{repo_id}' is no hub id. Pass OWNER/NAME or OWNER/NAME@REVISION.")
    file = fetch_enhancement(*named) / PLAN_FILE
    if not file.is_file():
        raise InputError(
            f"'{repo_id}' holds a LoRA without a direction, so there is no enhancement to pull. Use it as an adapter."
        )
    return file
