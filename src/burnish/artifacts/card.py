"""The model card written into every enhanced model and adapter, and published with an enhancement."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from jinja2 import Environment, PackageLoader, StrictUndefined

from burnish import __version__
from burnish.artifacts.card_words import CardWords
from burnish.artifacts.direction import Enhancement

CARD = "README.md"
TAG = "tag:yaml.org,2002:"  # of a type, in YAML


def model_card(
    enhancement: Enhancement,
    *,
    words: CardWords,
    base: dict[str, Any],
    check: dict[str, Any] | None,
    realised: list[tuple[int, float, float]],
) -> str:
    """Markdown with the hub's YAML front matter.

    words: of the form; base: of the base model, from `base_facts`; check: the numbers of the short check; realised: (layer, asked,
    realised) per edited projection.
    """
    asked = [gain for _, gain, _ in realised]
    text = _rendered(
        "card.md.jinja",
        words=words,
        base=base,
        check=check,
        directions=enhancement.directions,
        learned=sorted({d.provenance.teacher for d in enhancement.directions if d.learned}),
        layers=enhancement.edited_layers(),
        total_layers=enhancement.provenance.layers,
        smallest=min(asked, default=0.0),
        largest=max(asked, default=0.0),
        worst=max((abs(r / a - 1) for _, a, r in realised if a), default=0.0),
    )
    return write_card(_front(base, words, ["directional-enhancement", "burnish"]), text)


def trained_card(
    record: dict[str, Any],
    enhancement: Enhancement | None,
    *,
    words: CardWords,
    way: str,
    base: dict[str, Any],
    check: dict[str, Any] | None,
) -> str:
    """The same for a trained model. record: what `burnish.json` says of the training; way: the way to combine in a few words."""
    directions = () if enhancement is None else enhancement.directions
    text = _rendered(
        "trained.md.jinja", record=record, directions=directions, words=words, way=way, base=base, check=check
    )
    tags = [*(["directional-enhancement"] if directions else []), "lora", "burnish"]
    return write_card(_front(base, words, tags), text)


def _rendered(template: str, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("burnish.artifacts", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template(template).render(version=__version__, **values)


class _Yaml12(yaml.SafeLoader):
    """Reads as the hub does, where `no` is Norwegian and a day is a text: version 1.2's core types, without 1.1's."""


_Yaml12.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] not in (f"{TAG}bool", f"{TAG}timestamp")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml12.add_implicit_resolver(f"{TAG}bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def card_text(folder: Path) -> str | None:
    """A folder's card, or None. Bytes that are no UTF-8 are replaced: they are none of the table's."""
    file = folder / CARD
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None


def read_card(card: str) -> tuple[dict[str, Any], str]:
    """(the YAML table at the start of a card, the text behind it). The table is empty where there is none that can be read."""
    text = card.removeprefix("\ufeff")
    block = REGEX_YAML_BLOCK.match(text)
    if block is None:
        return {}, text
    try:
        table = yaml.load(block[2], Loader=_Yaml12)
    except (yaml.YAMLError, ValueError, RecursionError):  # a stranger's card: what cannot be read is unknown
        table = None
    return table if isinstance(table, dict) else {}, text[block.end() :]


def write_card(front: Mapping[str, Any], text: str) -> str:
    """A card of a table, which keeps its order, and a text."""
    table = {key: value for key, value in front.items() if value}
    values = ModelCardData(**table).to_dict()  # type: ignore[no-untyped-call]
    # Not its own to_yaml, which takes spaces off the last value.
    ordered = yaml.safe_dump({key: values[key] for key in table}, sort_keys=False, allow_unicode=True)
    return f"---\n{ordered}---\n{text}"


def base_facts(name: str, card: str | None) -> dict[str, Any]:
    """What a copy's card says of the base model: its name (a hub id, or as the user calls it), and its licence and languages as its own
    card states them, None where it does not."""
    front, _ = read_card(card or "")
    language = front.get("language")
    listed = language if isinstance(language, list) else [language]
    return {
        "name": name,
        **{
            ours: front[theirs] if isinstance(front.get(theirs), str) else None
            for ours, theirs in (
                ("licence", "license"),
                ("licence_name", "license_name"),
                ("licence_link", "license_link"),
            )
        },
        "language": [each for each in listed if isinstance(each, str)],
    }


def _front(base: Mapping[str, Any], words: CardWords, tags: list[str]) -> dict[str, Any]:
    """A card's table. The licence's own file is a part of a copy of the model alone."""
    link = base.get("licence_link")
    return {
        "base_model": base["name"],
        "license": base["licence"],
        "license_name": base["licence_name"],
        "license_link": link if link and (words.copies or "://" in link) else None,
        "language": base["language"],
        "library_name": words.library,
        "tags": tags,
    }
