"""What is published of an output: every file with its bytes, the base model, and the licence."""

import html
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from burnish.artifacts.card import CARD, base_facts, card_text, model_card, read_card, write_card
from burnish.artifacts.copying import model_files
from burnish.artifacts.direction import Enhancement
from burnish.artifacts.direction_file import kind_of, recipe_of
from burnish.artifacts.files import MARK, PLAN_FILE, read_mark, read_table
from burnish.artifacts.hub import LORA_FILES, NEVER, is_repo_id
from burnish.artifacts.recipe import RECIPE_FILE, public_recipe
from burnish.errors import InputError
from burnish.forms import form_of, forms

FILE_FORM = "enhancement"  # of an enhancement's own file
TEXT_ENDINGS = (".md", ".json", ".html")  # of what Burnish writes


@dataclass(frozen=True)
class PublishedFile:
    """One file: as it lies on the disk, or with content made for publishing."""

    name: str  # in the repository
    content: Path | bytes

    @property
    def bytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True)
class Publication:
    """What would go to the hub."""

    form: str
    base: str  # hub id of the base model
    licence: str | None  # as its card states it; None: unknown
    files: tuple[PublishedFile, ...]
    left_out: tuple[str, ...] = ()  # files that are not published

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def read_publication(
    path: Path,
    *,
    base: str | None = None,
    card_of: Callable[[str], str | None],
    public_name: Callable[[str], str] = str,
) -> Publication:
    """What of an output folder, or of an enhancement file, is published; nothing is written and nobody is asked.

    base: the base model's hub id, where the output was made from a local model: it takes the place of paths of this machine in cards
    and records. card_of, public_name: the card and the hub id of a base model by its name, for an enhancement file. Raises InputError for anything that Burnish
    did not write, without a card, without a base model that others can find, or with links in it; ModelError for a damaged record.
    """
    if base is not None and not is_repo_id(base):
        raise InputError(f"--base '{base}' is no hub id. Pass owner/name of the base model.")
    if path.is_dir() and (path / MARK).exists():
        return _folder(path, base)
    if path.is_dir():
        raise InputError(
            f"{path} was not written by Burnish ({MARK} is missing). Pass an output folder; other folders go up with `hf upload`."
        )
    if not path.is_file():
        raise InputError(f"{path} does not exist. Pass an output folder or an enhancement file.")
    return _file(path, base, card_of, public_name)


def _file(
    path: Path, base: str | None, card_of: Callable[[str], str | None], public_name: Callable[[str], str]
) -> Publication:
    if path.suffix != ".safetensors":
        raise InputError(
            f"{path} is no enhancement file (.safetensors). Pass one, or an output folder; other files go up with `hf upload`."
        )
    if kind_of(path) == "direction":
        raise InputError(
            f"{path} holds a direction, which says nothing about how strongly. Make an enhancement of it with "
            f"`burnish apply MODEL {path} --form enhancement -o FILE` and push that."
        )
    enhancement = Enhancement.load(path)
    name = enhancement.provenance.model
    facts = base_facts(public_name(name), card_of(name) or (card_of(base) if base else None))
    base_id = _base(path, facts["name"], base)
    words = form_of(FILE_FORM).words
    assert words is not None
    card = model_card(
        enhancement,
        words=words,
        base={**facts, "name": base_id},
        check=None,
        realised=[
            (layer, gain, gain) for layer in enhancement.edited_layers() for gain in enhancement.gains[layer].tolist()
        ],
    )
    local = {d.provenance.model for d in enhancement.directions if _is_local_path(d.provenance.model)}
    recipe = recipe_of(path)
    public = None if recipe is None else public_recipe(recipe, local, base_id)
    content = enhancement.renamed(base_id).as_bytes(public) if local or public != recipe else path
    files = (PublishedFile(CARD, card.encode()), PublishedFile(PLAN_FILE, content))
    return Publication(FILE_FORM, base_id, facts["licence"], files)


def _folder(folder: Path, base: str | None) -> Publication:
    mark = read_mark(folder)
    if not (folder / CARD).is_file():
        raise InputError(
            f"{folder} has no card ({CARD}), and nothing is published without its recipe and licence. Write the folder again."
        )
    form = next((f for f in forms() if f.marker is not None and (folder / f.marker).is_file()), None)
    if form is None:
        markers = " or ".join(f.marker for f in forms() if f.marker is not None)
        raise InputError(f"{folder} is neither a model nor an adapter: it has no {markers}. Write the folder again.")
    links = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_symlink()]
    if links:
        raise InputError(
            f"{folder} holds links ({', '.join(links[:3])}), which may lead to files that are not meant. Replace them by the files."
        )
    front, _ = read_card(card_text(folder) or "")
    stated = front.get("base_model")
    base_id = _base(folder, stated if isinstance(stated, str) else "", base)
    names = [p.relative_to(folder).as_posix() for p in model_files(folder)]
    left_out = [n for n in names if any(fnmatch(n, pattern) for pattern in NEVER) or _hidden(n)]
    local = {name for name in _names(folder, mark) if _is_local_path(name)}
    rewrite = _Rewriting(frozenset(local), stated if isinstance(stated, str) and stated != base_id else None, base_id)
    files = tuple(PublishedFile(n, rewrite(folder / n, n)) for n in names if n not in left_out)
    return Publication(form.name, base_id, front.get("license"), files, tuple(left_out))


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _base(path: Path, stated: str, base: str | None) -> str:
    """The base model's hub id. Raises InputError where there is none."""
    known = is_repo_id(stated) and not Path(stated).exists()
    if known and base not in (None, stated):
        raise InputError(f"{path} was made from {stated}, not from {base}. Leave out --base.")
    base_id = stated if known else base
    if base_id is None:
        raise InputError(
            f"{path} names its base model as '{stated}', which others cannot find. Pass --base OWNER/NAME, the base model's hub id."
        )
    return base_id


def _is_local_path(name: str) -> bool:
    return os.sep in name and (not is_repo_id(name) or Path(name).exists())


def _names(folder: Path, mark: dict[str, Any]) -> Iterator[str]:
    """What an output folder calls its base model, everywhere it does."""
    yield str(mark.get("base", ""))
    yield from (str(d.get("model", "")) for d in mark.get("directions") or [])
    for settings in sorted(folder.rglob(LORA_FILES[0])):
        yield str(read_table(settings).get("base_model_name_or_path") or "")
    if (folder / PLAN_FILE).is_file():
        yield from (d.provenance.model for d in Enhancement.load(folder / PLAN_FILE).directions)


@dataclass(frozen=True)
class _Rewriting:
    """Puts the base model's hub id in the place of paths of this machine; files without any are published as they lie."""

    local: frozenset[str]
    stated: str | None  # the card's name of the base model where that is no hub id
    base: str

    def __call__(self, path: Path, name: str) -> Path | bytes:
        if name == PLAN_FILE and self.local:
            enhancement = Enhancement.load(path)
            known = all(d.provenance.model not in self.local for d in enhancement.directions)
            return path if known else enhancement.renamed(self.base).as_bytes()
        if name == RECIPE_FILE:
            recipe = path.read_text(encoding="utf-8")
            public = public_recipe(recipe, self.local, self.base)
            return path if public == recipe else public.encode()
        if not name.endswith(TEXT_ENDINGS) or (name != CARD and not _ours(name)):
            return path
        text = path.read_text(encoding="utf-8", errors="replace")  # as `card_text`
        new = text
        for local in sorted(self.local, key=len, reverse=True):  # a path may begin another
            for form in {local, json.dumps(local)[1:-1], html.escape(local)}:
                new = new.replace(form, self.base)
        if name == CARD and self.stated is not None:
            front, words = read_card(new)
            for before, after in (("# ", ", "), ("`", "`")):
                words = words.replace(f"{before}{self.stated}{after}", f"{before}{self.base}{after}")
            new = write_card({**front, "base_model": self.base}, words)
        return path if new == text else new.encode()


def _ours(name: str) -> bool:
    """Whether Burnish wrote a file, and not the base model's authors."""
    return name == MARK or name.startswith("burnish/") or name == LORA_FILES[0]
