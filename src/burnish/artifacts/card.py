"""The model card written into every enhanced model and adapter."""

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
    realised: (layer, asked, realised) per edited projection.
    """
    environment = Environment(
        loader=PackageLoader("burnish.artifacts", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    asked = [gain for _, gain, _ in realised]
    return environment.get_template("card.md.jinja").render(
        form=form,
        base=base,
        check=check,
        directions=enhancement.directions,
        layers=enhancement.edited_layers(),
        total_layers=enhancement.provenance.layers,
        smallest=min(asked, default=0.0),
        largest=max(asked, default=0.0),
        worst=max((abs(r / a - 1) for _, a, r in realised if a), default=0.0),
        version=__version__,
    )


def base_facts(name: str, card: str | None) -> dict[str, Any]:
    """The base model's licence and language from the front matter of its card, unknown where it has none."""
    facts: dict[str, Any] = {"name": name, "licence": None, "licence_name": None, "language": []}
    if card and card.startswith("---"):
        import yaml

        front = yaml.safe_load(card.split("---", 2)[1]) or {}
        facts["licence"] = front.get("license")
        facts["licence_name"] = front.get("license_name")
        language = front.get("language", [])
        facts["language"] = [language] if isinstance(language, str) else list(language or [])
        base = front.get("base_model")
        facts["name"] = base if isinstance(base, str) and "/" not in name else name
    return facts
