"""What a server can mix: enhancements given at its start, and the named directions of its model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from burnish import catalogue
from burnish.artifacts.direction import Direction, Enhancement
from burnish.errors import InputError
from burnish.languages import DEFAULT, languages
from burnish.mix import Mix, Term
from burnish.model.forecast import Work
from burnish.model.model import Model
from burnish.options import ServeOptions
from burnish.personal.enhancing import editing_directions, everyday_writes
from burnish.personal.features import everyday_answers, units_of
from burnish.personal.profile import Units
from burnish.pipeline import read_enhancement
from burnish.prompts.axes import axis_names, load_axis
from burnish.prompts.domains import domain_names, load_domain
from burnish.server.measurements import damage_items
from burnish.steps import Progress

PROMPT = 256  # tokens of a chat before its answer


@dataclass(frozen=True)
class Directions:
    """Names and what they stand for on one model. Writes and units are measured when they are first asked for."""

    loaded: Mapping[str, Enhancement] = field(default_factory=dict)
    reading: Mapping[str, Direction] = field(default_factory=dict)  # by packaged name: where answers lie
    editing: Mapping[str, Direction] = field(default_factory=dict)  # by packaged name: what is strengthened
    _writes: dict[str, Tensor] = field(default_factory=dict)  # by language
    _units: dict[str, Units] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [*self.loaded, *self.editing]

    def read_in(self, language: str) -> dict[str, Direction]:
        """The directions of a language's names along which answers are read."""
        return {name: self.reading[name] for name in catalogue.names_in(language) if name in self.reading}

    def writes(self, model: Model, language: str) -> Tensor:
        """What attention writes on everyday answers, [answers, layers, hidden]. Uses the model when first asked."""
        if language not in self._writes:
            self._writes[language] = everyday_writes(model, language)
        return self._writes[language]

    def units(self, model: Model, language: str) -> Units:
        """The units of the features of a language's names. Uses the model when first asked."""
        if language not in self._units:
            self._units[language] = units_of(model, self.read_in(language), language)
        return self._units[language]


def read_enhancements(entries: Sequence[str]) -> dict[str, Enhancement]:
    """Enhancement files or folders by name: NAME=PATH, or a path whose last part without its ending is the name.

    Raises InputError for a file that cannot be read or a name that is taken.
    """
    enhancements: dict[str, Enhancement] = {}
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not equals and Mix.of_files(Path(entry)) is not None:
            raise InputError(f"The mix {entry} needs a name for requests. Pass --with NAME='{entry}'.")
        if not equals or Path(entry).exists():
            name, path = Path(entry).name.removesuffix(".safetensors"), entry
        Term(1.0, name)  # raises for a name that no expression could hold
        if name in enhancements or name in (*domain_names(), *axis_names()):
            raise InputError(
                f"The name '{name}' of {path} is taken by another enhancement or a packaged domain. Pass --with OTHER={path}."
            )
        enhancements[name] = read_enhancement(Path(path), None, "all")
    return enhancements


def prepare(
    model: Model, loaded: Mapping[str, Enhancement], *, profiles: bool = True, progress: Progress | None = None
) -> Directions:
    """Finds (or reads from the cache) what profiles need: the directions of every packaged name, and everyday answers.

    profiles: False leaves the packaged names out. Raises WrongModelError for an enhancement of another model.
    """
    for enhancement in loaded.values():
        enhancement.require(model.fingerprint, model.anatomy.layers, model.anatomy.hidden_size)
    if not profiles:
        return Directions(loaded)
    names = [name for language in languages() for name in catalogue.names_in(language)]
    reading = catalogue.named_directions(model, names, progress=progress)
    editing = editing_directions(model, names, progress)
    for language in languages():
        everyday_answers(model, language, progress)
        damage_items(model, language, progress)
    directions = Directions(loaded, reading, editing)
    directions.writes(model, DEFAULT)
    return directions


def serving_work(model: Model, limits: ServeOptions, *, profiles: bool) -> Work:
    """What `prepare` does where nothing of it is kept yet, and the texts whose keys and values the rows hold. model: its outline."""
    served = Work(cached=limits.rows * (limits.tokens_limit + PROMPT))
    if not profiles:
        return served
    names = sum(len(catalogue.names_in(language)) for language in languages())
    return served + catalogue.naming_work(model, 2 * names)


def language_of(name: str) -> str:
    """The language of a packaged name."""
    return next(language for language in languages() if name in catalogue.names_in(language))


def title_of(name: str) -> str:
    """What a packaged name is called; any other name is its own title."""
    if name in domain_names():
        return load_domain(name).title
    return load_axis(name).title if name in axis_names() else name
