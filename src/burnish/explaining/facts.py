"""What an explanation says, as numbers: every figure on the page is a field here, and each is tested apart from its drawing.

Effects and damage are in nats per token.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from burnish.checking import Check
from burnish.evaluation.evaluating import Evaluation
from burnish.evaluation.pairs import Sample
from burnish.learning.report import Learning
from burnish.maths.intervals import Interval


@dataclass(frozen=True)
class LayerQuality:
    """How well the direction of a layer separates held-out prompts."""

    layer: int
    auroc: float
    null_auroc: float  # 95th percentile under shuffled labels
    d_prime: float  # distance of the means in standard deviations
    split_half_cosine: float | None  # between the directions of two halves of the prompts; a learnt direction has none
    largest_share: float  # of the squared length, in the four largest coordinates


@dataclass(frozen=True)
class TokenWeight:
    token: str
    weight: float  # of the token's logit, above the vocabulary's mean, in its standard deviations


@dataclass(frozen=True)
class LayerTokens:
    """What a layer's vector says when read through the final norm and the unembedding."""

    layer: int
    promoted: tuple[TokenWeight, ...]  # largest first
    suppressed: tuple[TokenWeight, ...]  # most negative first
    kurtosis: float  # of the weights over the vocabulary; 3 for a random vector: no token stands out


@dataclass(frozen=True)
class Likeness:
    """Another named direction at the same layer and site."""

    name: str
    kind: Literal["domain", "axis"]
    poles: tuple[str, str] | None  # of an axis: what positive and negative mean
    cosine: float
    coefficient: float  # in the joint least-squares decomposition


@dataclass(frozen=True)
class Likenesses:
    named: tuple[Likeness, ...]  # most alike, or most opposite, first
    unexplained: float  # share of the squared length that all named directions together leave
    unexplained_random: float  # the same for a random vector, on average: 1 - directions / hidden size
    chance: float  # 95 % of random vectors have a smaller |cosine|


@dataclass(frozen=True)
class DirectionFacts:
    """One direction of the enhancement."""

    name: str
    title: str
    layer: int
    scope: str
    site: str
    position: str
    found: bool  # above its shuffled-label null
    teacher: str  # who taught it; empty for a contrast of prompts
    enhance_prompts: int
    normal_prompts: int
    held_out: int
    quality: tuple[LayerQuality, ...]
    tokens: tuple[LayerTokens, ...]
    likenesses: Likenesses | None

    @property
    def learned(self) -> bool:
        return bool(self.teacher)

    @property
    def at_chosen(self) -> LayerQuality:
        return self.quality[self.layer]

    @property
    def chosen_tokens(self) -> LayerTokens | None:
        """Of the chosen layer, or of the last where that one was not read."""
        return next((t for t in self.tokens if t.layer == self.layer), self.tokens[-1] if self.tokens else None)


@dataclass(frozen=True)
class LayerPart:
    """What the edit in one layer does to the likelihood of the good answers."""

    layer: int
    first_order: float  # gain times the derivative at zero gains
    measured: float | None  # with this layer alone edited; None where not measured


@dataclass(frozen=True)
class Attribution:
    """Where the effect comes from."""

    aim: str  # what is measured
    answers: int
    total: float  # measured change under the whole edit
    first_order: float  # sum over all layers of their first-order parts
    layers: tuple[LayerPart, ...]


@dataclass(frozen=True)
class Dose:
    """One strength of the edit, nats per token."""

    multiple: float  # of the gains
    damage: Interval  # mean KL on everyday and protect prompts
    damage_p95: float  # 95th percentile over their tokens
    likelihood: Interval | None  # change of the good answers' log probability


@dataclass(frozen=True)
class DoseCurve:
    """The edit at several strengths."""

    aim: str  # what the likelihood is of
    prompts: int
    answers: int
    doses: tuple[Dose, ...]

    @property
    def at_one(self) -> Dose:
        """The strength that is explained."""
        return next(dose for dose in self.doses if dose.multiple == 1)


@dataclass(frozen=True)
class ActingDirection:
    """A learnt direction in one layer."""

    layer: int
    number: int  # among the layer's, from 1: the largest gain first
    gain: float
    moved: float  # how far it moves attention's output, root mean square over prompts
    promoted: tuple[
        str, ...
    ]  # tokens whose logits rise most with its write, through the final norm and the unembedding
    suppressed: tuple[str, ...]
    strongest: tuple[tuple[str, float], ...]  # prompts with the largest coordinate at their last token
    weakest: tuple[tuple[str, float], ...]  # and with the most negative


@dataclass(frozen=True)
class Acting:
    """What learnt directions write, and when they act."""

    rank: int  # learnt directions a layer
    prompts: int  # that were read
    directions: tuple[ActingDirection, ...]  # with a gain, the one that moves most first
    layers: tuple[tuple[int, float], ...]  # how far the edit moves attention's output, root mean square over prompts

    @property
    def largest(self) -> float:
        """Of the layers' movements; above zero."""
        return max(value for _, value in self.layers) or 1.0


@dataclass(frozen=True)
class AppliedGain:
    layer: int
    direction: int  # index into the explanation's directions
    asked: float
    realised: float | None  # by the stored weights; None where nothing is stored


@dataclass(frozen=True)
class Explanation:
    """Everything a page shows."""

    model: str
    dtype: str
    title: str  # of what is enhanced, in words
    directions: tuple[DirectionFacts, ...]
    gains: tuple[AppliedGain, ...]
    attribution: Attribution | None
    dose: DoseCurve | None
    acting: Acting | None  # None without learnt directions
    answers: tuple[Sample, ...]  # greedy
    check: Check | None
    evaluation: Evaluation | None
    learning: Learning | None
    seed: int
    versions: dict[str, str]

    @property
    def contrasts(self) -> tuple[DirectionFacts, ...]:
        """The directions that were not learnt."""
        return tuple(d for d in self.directions if not d.learned)

    @property
    def taught(self) -> tuple[tuple[DirectionFacts, int], ...]:
        """The first of every set of directions that were learnt together, and how many they are in a layer."""
        sets: dict[tuple[str, str], list[DirectionFacts]] = {}
        for direction in self.directions:
            if direction.learned:
                sets.setdefault((direction.name, direction.teacher), []).append(direction)
        return tuple((together[0], len(together)) for together in sets.values())

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON, with what is derived from the numbers."""
        return {
            **asdict(self),
            "check": None if self.check is None else self.check.as_dict(),
        }
