"""A profile: one person's mix of named directions, in words and as JSON. It costs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from burnish.errors import InputError
from burnish.personal.accuracy import Z95, Accuracy

Source = Literal["sliders", "choices"]
BUDGET = 0.01  # nats per token that everyday prompts may move, on average
LONGEST_NAME = 80
STRONGEST = 10.0  # standard deviations that a slider may ask for
SLIGHTLY, MUCH = 0.25, 1.0  # coefficients up to which something is slight, and from which it is much
COMPARED = {"long": "longer", "short": "shorter", "warm": "warmer"}  # poles that do not take "more"
NOTHING = "nothing learned yet for sure"


@dataclass(frozen=True)
class Coefficient:
    """How much of one named direction, in standard deviations over the base model's own everyday answers."""

    mean: float
    deviation: float  # 0 where the person set it
    source: Source

    @property
    def sure(self) -> bool:
        """Whether the 95 % interval excludes zero."""
        return abs(self.mean) > Z95 * self.deviation


@dataclass(frozen=True)
class Units:
    """What one unit of each feature is on one model: its standard deviation over that model's own everyday answers."""

    model: str
    fingerprint: str
    spread: dict[str, float]


@dataclass(frozen=True)
class Scale:
    """What keeps a profile within its budget on one model."""

    value: float  # of (0, 1]
    plan: str  # digest of the doses, directions and budget that it was measured for


@dataclass(frozen=True)
class Choice:
    """Two answers to one prompt and which was preferred. Without `text` nothing of what was read is kept."""

    first: dict[str, float]  # features by name, in units
    second: dict[str, float]
    outcome: float  # 1: the first, 0: the second, 0.5: no preference
    fingerprint: str  # of the model whose features these are
    text: tuple[str, str, str] | None = None  # prompt, first, second
    time: str = ""  # ISO 8601, UTC; set by the store


@dataclass(frozen=True)
class Profile:
    """One person's mix. Coefficients are the same on every model; directions, units and scales are each model's own."""

    id: str
    name: str
    language: str = "en"
    budget: float = BUDGET
    keep_text: bool = False
    sliders: dict[str, float] = field(default_factory=dict)
    coefficients: dict[str, Coefficient] = field(default_factory=dict)
    choices: int = 0
    accuracy: Accuracy | None = None
    units: Units | None = None
    scales: dict[str, Scale] = field(default_factory=dict)  # by model fingerprint

    def __post_init__(self) -> None:
        if not 0 < self.budget < float("inf"):
            raise InputError(f"The budget {self.budget} leaves no room for any change. Pass for example {BUDGET}.")
        name = self.name
        if not name or name != name.strip() or not name.isprintable() or '"' in name or len(name) > LONGEST_NAME:
            raise InputError(
                f"{name[:LONGEST_NAME]!r} cannot be a profile's name: it needs visible text of at most {LONGEST_NAME} "
                "characters, without double quotes. Pass for example 'mine'."
            )

    @property
    def active(self) -> list[str]:
        """Names whose coefficient is not zero."""
        return [name for name, coefficient in self.coefficients.items() if coefficient.mean]

    def with_coefficients(
        self, coefficients: Mapping[str, Coefficient], choices: int, accuracy: Accuracy | None
    ) -> "Profile":
        """The profile after learning: the scales belonged to the old coefficients."""
        return replace(self, coefficients=dict(coefficients), choices=choices, accuracy=accuracy, scales={})

    def as_json(self) -> str:
        return ADAPTER.dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> "Profile":
        """Raises InputError for text that is not a profile."""
        try:
            return ADAPTER.validate_json(text)
        except ValidationError as error:
            raise InputError(
                f"A profile cannot be read: {error.errors()[0]['msg']}. It was changed by hand or made by another version: make it again."
            ) from error


ADAPTER = TypeAdapter(Profile)


def checked_names(profile: Profile, names: Mapping[str, float]) -> None:
    """Raises InputError for a name that is no domain or axis of the profile's language, or a value beyond +-10."""
    from burnish.catalogue import names_in

    known = names_in(profile.language)
    for name, value in names.items():
        if name not in known:
            raise InputError(f"There is no direction '{name}' in '{profile.language}'. Set one of: {', '.join(known)}.")
        if not abs(value) <= STRONGEST:
            raise InputError(
                f"The value {value} of '{name}' is not between {-STRONGEST:g} and {STRONGEST:g} standard deviations. "
                f"Pass for example {name}=0.5."
            )


def describe(profile: Profile) -> str:
    """The profile in words: what choices say for sure (the 95 % interval excludes zero), what was set by hand, and from how much."""
    chosen = {n: c.mean for n, c in profile.coefficients.items() if c.sure and c.source == "choices"}
    parts = [_words(chosen)]
    if not chosen and not profile.sliders:
        parts = [NOTHING]
    if profile.sliders:
        parts.append(f"set by hand: {_words(profile.sliders)}")
    if profile.choices:
        parts.append(f"{profile.choices} choice{'s' * (profile.choices != 1)}" + _foreseen(profile.accuracy))
    return "; ".join(part for part in parts if part)


def _words(values: Mapping[str, float]) -> str:
    """Strongest first; zeros are left out."""
    ordered = sorted((n for n in values if values[n]), key=lambda name: (-abs(values[name]), name))
    return ", ".join(_phrase(name, values[name]) for name in ordered)


def _phrase(name: str, value: float) -> str:
    from burnish.prompts.axes import axis_names, load_axis
    from burnish.prompts.domains import domain_names, load_domain

    grade = "slightly " if abs(value) < SLIGHTLY else "much " if abs(value) >= MUCH else ""
    if name in axis_names():
        pole = load_axis(name).poles[value < 0]
        return grade + COMPARED.get(pole, f"more {pole}")
    title = load_domain(name).title.lower() if name in domain_names() else name
    return f"{grade}{'more' if value > 0 else 'less'} like {title}"


def _foreseen(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return ""
    return f", predicts {accuracy.share:.0%} of held-out choices ({accuracy.low:.0%} to {accuracy.high:.0%})"
