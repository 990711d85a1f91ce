"""Directions that have a name: packaged domains and style axes, found on a model once and kept on disk.

They describe other directions ("0.4 like creative writing, 0.2 more formal") and are what a person's mix is made of.
"""

from collections.abc import Sequence
from contextlib import suppress

from burnish.artifacts.cache import cache_file, keep
from burnish.artifacts.direction import Direction
from burnish.errors import InputError
from burnish.finding import found_direction
from burnish.model.forecast import Work, lengths
from burnish.model.model import Model
from burnish.options import FindOptions, Site
from burnish.prompts.axes import axis_names, load_axis
from burnish.prompts.contrast import Contrast, domain_contrast
from burnish.prompts.domains import domain_names, load_domain, load_general, load_protect
from burnish.steps import Progress

# Prompts a set, and held out of each: names serve to describe, and many of them are found at once.
INSTRUCTIONS, HELD_OUT = 48, 24


def names_in(language: str) -> list[str]:
    """Domains of a language, then axes of that language."""
    domains = [name for name in domain_names() if load_domain(name).language == language]
    return domains + [name for name in axis_names() if load_axis(name).language == language]


def naming_work(model: Model, names: int) -> Work:
    """Finding named directions, which is done once a model and then kept."""
    _, length = lengths(model, load_general("en").prompts)
    return Work(names * 2 * (INSTRUCTIONS + HELD_OUT) * length)


def named_directions(
    model: Model,
    names: Sequence[str],
    *,
    site: Site = "residual",
    protect: bool = False,
    progress: Progress | None = None,
) -> dict[str, Direction]:
    """The direction of each name, one a layer (scope per-layer, last prompt token), from the cache or found now.

    protect: what general and protect prompts write is taken out; without it the directions are plain, as they serve to
    describe. Raises InputError for a name that is neither a packaged domain nor an axis.
    """
    unknown = [name for name in names if name not in (*domain_names(), *axis_names())]
    if unknown:
        raise InputError(
            f"There is no domain or axis '{unknown[0]}'. Pass one of: {', '.join((*domain_names(), *axis_names()))}."
        )
    options = FindOptions(instructions=INSTRUCTIONS, scope="per-layer", site=site, protect=protect)
    return {name: _named(model, name, options, progress) for name in names}


def _named(model: Model, name: str, options: FindOptions, progress: Progress | None) -> Direction:
    contrast = _contrast(name)
    identity = {
        "model": model.fingerprint,
        "dtype": str(model.network.dtype),
        "template": getattr(model.tokenizer, "chat_template", None),
        "prompts": [s.hash for s in (contrast.enhance, contrast.normal, *contrast.held_out) if s],
        "protect": contrast.protect.hash if contrast.protect and options.protect else None,
        "options": str(options),
    }
    path = cache_file("directions", identity, ".safetensors")
    with suppress(InputError, OSError):  # there is none yet, or it is damaged, or of an older format
        return Direction.load(path)
    direction = found_direction(model, contrast, options, progress)
    keep(path, direction.as_bytes())
    return direction


def _contrast(name: str) -> Contrast:
    if name in domain_names():
        return domain_contrast(load_domain(name), held_out=HELD_OUT)
    axis = load_axis(name)
    return Contrast(axis.positive, axis.negative, (axis.held_positive, axis.held_negative), load_protect())
