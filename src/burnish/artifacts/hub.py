"""The hub: its ids, its errors in Burnish's words, and fetching exactly the files that are wanted.

huggingface_hub does the talking. It takes the token from HF_TOKEN or from its own login; Burnish never passes one on, and nothing that
the hub says is repeated before the token has been taken out of it.
"""

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from burnish.artifacts.files import LORA_FOLDER, MARK, PLAN_FILE, is_trained
from burnish.errors import BurnishError, DiskFullError, HubError, InputError, ModelNotFoundError

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
LORA_FILES = ("adapter_config.json", "adapter_model.safetensors")
ENHANCEMENT_FILES = (MARK, PLAN_FILE)
ADAPTER_FILES = (*ENHANCEMENT_FILES, *LORA_FILES, *(f"{LORA_FOLDER}/{name}" for name in LORA_FILES))
# Files that can run code when they are read, or weights that Burnish neither reads nor edits.
NEVER = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf")
FILE_ENDINGS = (".safetensors", ".gguf", ".json", *(pattern.removeprefix("*") for pattern in NEVER))
FULL = (errno.ENOSPC, errno.EDQUOT)
LONGEST_WORDS = 300  # characters of what the hub says


def is_repo_id(name: str) -> bool:
    """Whether a text has the form `owner/name`."""
    return NAME.fullmatch(name) is not None and "--" not in name and ".." not in name and len(name) <= 96


def parsed(text: str) -> tuple[str, str | None] | None:
    """(`owner/name`, revision) of a text of the form `owner/name` or `owner/name@revision`."""
    name, _, revision = text.partition("@")
    return (name, revision or None) if is_repo_id(name) else None


def hub_id(path: Path) -> tuple[str, str | None] | None:
    """The same of a path, unless it exists here or has a file's ending."""
    return None if path.exists() or path.suffix in FILE_ENDINGS else parsed(path.as_posix())


def enhancement_folder(path: Path) -> Path:
    """The path itself, or the folder into which the enhancement of the hub's `owner/name[@revision]` was fetched.

    Raises what `fetch_enhancement` raises.
    """
    named = hub_id(path)
    return path if named is None else fetch_enhancement(*named)


def adapter_folder(path: Path) -> Path:
    """The same for a LoRA: its settings and its factors as safetensors, with the enhancement beside it if there is one.

    Raises InputError where there is no LoRA in it, ModelNotFoundError, HubError.
    """
    named = hub_id(path)
    if named is None:
        return path
    folder = fetch(*named, ADAPTER_FILES)
    if not any((place / LORA_FILES[1]).is_file() for place in (folder, folder / LORA_FOLDER)):
        raise InputError(
            f"'{path}' on the hub holds no LoRA as safetensors ({LORA_FILES[1]} is missing). Pass another repository, or a folder."
        )
    return folder


def fetch_enhancement(repo: str, revision: str | None) -> Path:
    """A folder with the repository's enhancement, and the record beside it, as in an output folder.

    Raises InputError where there is no enhancement in it, ModelNotFoundError, HubError.
    """
    folder = fetch(repo, revision, ENHANCEMENT_FILES)
    if not (folder / PLAN_FILE).is_file() and not is_trained(folder):
        raise InputError(
            f"'{repo}' on the hub holds no enhancement ({PLAN_FILE} is missing). Pass a repository made by `burnish push`, or a file."
        )
    return folder


def fetch(repo: str, revision: str | None, wanted: Sequence[str]) -> Path:
    """The folder in the client's cache with those of the `wanted` files that a repository has: nothing else in it is touched.

    Raises ModelNotFoundError for an unknown repository or revision, HubError where the hub cannot be reached or refuses.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(f"'{repo}' is no path here and could not be fetched from the hub"):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(wanted)))


@contextmanager
def hub_errors(what: str, *, after: str = "") -> Iterator[None]:
    """Turns whatever the client raises into a HubError or ModelNotFoundError that says what, why and what to do.

    what: the sentence's beginning; after: how things stand now, as a sentence.
    """
    from huggingface_hub import errors

    # The client raises RuntimeError for an upload that failed and ValueError for an answer or a card that is not valid.
    kinds: tuple[type[Exception], ...] = (
        *(kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)),
        *(OSError, RuntimeError, ValueError),
    )
    try:
        yield
    except kinds as error:
        translated = _translated(error, what, f" {after}" if after else "")
        raise translated from None  # the cause may quote what the hub said, token and all


def _translated(error: BaseException, what: str, after: str) -> BurnishError:
    from huggingface_hub import get_token, is_offline_mode
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, OSError) and error.errno in FULL:
        return DiskFullError(
            f"{what}: the disk is full.{after} Free some space, or set HF_HOME to a folder on another disk."
        )
    if isinstance(error, PermissionError) and error.filename:
        return InputError(
            f"{what}: {error.filename} may not be read or written.{after} Change that, or set HF_HOME to a folder of yours."
        )
    causes = list(_causes(error))
    status = next((c.response.status_code for c in causes if hasattr(c, "response")), None)
    if is_offline_mode() or any(isinstance(c, OfflineModeIsEnabled) for c in causes):
        return HubError(
            f"{what}: the client is offline (HF_HUB_OFFLINE is set), and its cache does not have all of it.{after} Unset it, or pass a "
            "path of this machine."
        )
    if isinstance(error, (GatedRepoError, PermissionError)) or status == 403:  # a PermissionError of its storage
        return HubError(
            f"{what}: the hub does not allow it{_words(error)}.{after} Ask for access on the repository's page, or use a token "
            "that may do this (write permission to push)."
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFoundError(f"{what}: it has no such revision.{after} Check the branch, tag or commit.")
    if status == 404 or (isinstance(error, RepositoryNotFoundError) and get_token() is None):
        return ModelNotFoundError(
            f"{what}: there is no such repository that you may see.{after} Check the spelling; for a private one "
            "log in with `hf auth login` or set HF_TOKEN."
        )
    if status == 401:
        return HubError(
            f"{what}: the hub does not accept the token.{after} Log in again with `hf auth login` or set HF_TOKEN."
        )
    if status == 429 or (status is not None and status >= 500):
        return HubError(f"{what}: the hub answered {status}.{after} Wait a little and run the same command again.")
    if status is not None:
        return HubError(f"{what}: the hub answered {status}{_words(error)}.{after} Correct that and run it again.")
    kind = type(causes[-1]).__name__
    if isinstance(causes[-1], ValueError):
        return HubError(f"{what}: {kind}{_words(error)}.{after} Correct that and run it again.")
    return HubError(
        f"{what}: the connection failed ({kind}).{after} Check the network and HF_ENDPOINT, then run the same command again."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def _words(error: BaseException) -> str:
    """What the hub or the client said, behind a colon: on one line, without control characters and without the token."""
    from huggingface_hub import get_token

    text = " ".join((getattr(error, "server_message", None) or str(error)).split())
    if token := get_token():
        text = text.replace(token, "<token>")
    text = "".join(c for c in text if c.isprintable())[:LONGEST_WORDS].rstrip(". ")
    return f": {text}" if text else ""
