"""The model card written into every enhanced model and adapter, and published with an enhancement."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from burnish import __version__
from burnish.artifacts.direction import Enhancement


def model_card(
    enhancement: Enhancement,
    *,
    form: str,
    base: dict[str, Any],
    check: dict[str, Any] | None,
    realised: list[tuple[int, float, float]],
) -> str:
    """Markdown with the hub's YAML front matter.

    base: `name`, `licence`, `language` of the base model as its own card states them; check: the numbers of the short check;
    form: "model", "adapter" or "enhancement", whose gains are realised only when it is applied; realised: (layer, asked, realised)
    per edited projection.
    """
    asked = [gain for _, gain, _ in realised]
    return _rendered(
        "card.md.jinja",
        form=form,
        base=base,
        check=check,
        directions=enhancement.directions,
        layers=enhancement.edited_layers(),
        total_layers=enhancement.provenance.layers,
        smallest=min(asked, default=0.0),
        largest=max(asked, default=0.0),
        worst=max((abs(r / a - 1) for _, a, r in realised if a), default=0.0),
    )


def trained_card(
    record: dict[str, Any],
    enhancement: Enhancement | None,
    *,
    form: str,
    said: str,
    base: dict[str, Any],
    check: dict[str, Any] | None,
) -> str:
    """The same for a trained model. record: what `burnish.json` says of the training; said: the way to combine in a few words."""
    directions = () if enhancement is None else enhancement.directions
    return _rendered(
        "trained.md.jinja", record=record, directions=directions, form=form, said=said, base=base, check=check
    )


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


def front_matter(card: str) -> dict[str, Any]:
    """The YAML table at the start of a card; empty where there is none that can be read."""
    import yaml

    parts = card.split("---", 2)
    if not card.startswith("---") or len(parts) < 3:
        return {}
    try:
        found = yaml.safe_load(parts[1])
    except yaml.YAMLError:  # a stranger's card: what cannot be read is unknown
        return {}
    return found if isinstance(found, dict) else {}


def base_facts(name: str, card: str | None) -> dict[str, Any]:
    """The base model's licence and language from the front matter of its card, unknown where it has none."""
    front = front_matter(card or "")
    language = front.get("language") or []
    base = front.get("base_model")
    return {
        "name": base if isinstance(base, str) and "/" not in name else name,
        "licence": front.get("license"),
        "licence_name": front.get("license_name"),
        "language": [language] if isinstance(language, str) else list(language),
    }
