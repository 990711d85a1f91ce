"""Made-up explanations: `full()` has every part, `minimal()` only what every enhancement has."""

import random
from math import exp
from typing import Any

from burnish.checking import Check
from burnish.evaluation.damage import Damage
from burnish.evaluation.effect import Affinity, Effect
from burnish.evaluation.evaluating import Evaluation, StatisticChange
from burnish.evaluation.pairs import PairKind, Sample
from burnish.explaining.facts import (
    Acting,
    ActingDirection,
    AppliedGain,
    Attribution,
    DirectionFacts,
    Dose,
    DoseCurve,
    Explanation,
    LayerPart,
    LayerQuality,
    LayerTokens,
    Likeness,
    Likenesses,
    TokenWeight,
)
from burnish.maths.intervals import Interval

LAYERS, FEW_LAYERS = 30, 10
VERSIONS = {"burnish": "0.1.0", "torch": "2.9.0", "transformers": "5.1.0"}
PROMPTS = ("Describe an old lighthouse at dusk.", "What is photosynthesis?")
SAMPLES = (
    Sample(PROMPTS[0], "It is an old building by the sea.\nMany people visit it.", "Salt had eaten the railings thin."),
    Sample(PROMPTS[1], "Plants turn light into energy.", "A leaf drinks water, breathes in and keeps the sun."),
)


def interval(mean: float, width: float = 0.04, n: int = 16) -> Interval:
    return Interval(mean, mean - width, mean + width, 0.001 if abs(mean) > width else 0.4, n)


def effect(kind: PairKind, above: float, likelihood: float, *, pairs: int = 24) -> Effect:
    return Effect(
        kind,
        pairs,
        pairs * 48,
        interval(above + 0.02, n=pairs),
        interval(above, n=pairs),
        interval(likelihood, 0.02, n=pairs),
    )


def chosen(layers: int) -> int:
    return layers * 3 // 5


def quality(seed: int, layers: int, *, best: float = 0.98, share: float = 0.09) -> tuple[LayerQuality, ...]:
    draw = random.Random(seed)
    layers_measured = []
    for layer in range(layers):
        near = exp(-(((layer - chosen(layers)) / 11) ** 2))
        layers_measured.append(
            LayerQuality(
                layer=layer,
                auroc=0.55 + (best - 0.55) * near if layer != chosen(layers) else best,
                null_auroc=0.62 + draw.uniform(-0.02, 0.02),
                d_prime=3.4 * near + draw.uniform(-0.1, 0.1),
                split_half_cosine=0.35 + 0.57 * near,
                largest_share=share,
            )
        )
    return tuple(layers_measured)


def direction(name: str, title: str, seed: int, *, layers: int = LAYERS, **changes: Any) -> DirectionFacts:
    middle = chosen(layers)

    def weights(words: str, sign: int) -> tuple[TokenWeight, ...]:
        return tuple(TokenWeight(w, sign * (6.1 - 0.35 * i)) for i, w in enumerate(words.split("|")))

    facts: dict[str, Any] = {
        "name": name,
        "title": title,
        "layer": middle,
        "scope": "per-layer",
        "site": "attention",
        "position": "prompt",
        "found": True,
        "teacher": "",
        "enhance_prompts": 95,
        "normal_prompts": 95,
        "held_out": 64,
        "quality": quality(seed, layers),
        "tokens": tuple(
            LayerTokens(
                layer,
                weights(" velvet| dusk| whisper| shimmering| her| beneath|的| lantern", 1),
                weights(" therefore| percent| SQL|\n\n| respectively| API| policy| No", -1),
                kurtosis,
            )
            for layer, kurtosis in ((12, 3.0), (middle, 5.4), (24, 4.2))
        ),
        "likenesses": Likenesses(
            named=(
                Likeness("education", "domain", None, 0.31, 0.12),
                Likeness("formal-casual", "axis", ("formal", "casual"), -0.17, -0.09),
            ),
            unexplained=0.61,
            unexplained_random=0.99,
            chance=0.082,
        ),
    }  # fmt: skip
    return DirectionFacts(**{**facts, **changes})


def attribution() -> Attribution:
    draw = random.Random(5)
    layers = tuple(
        LayerPart(i, v, v * 0.9 if i % 3 == 0 else None)
        for i, v in enumerate(0.02 * exp(-(((n - 20) / 6) ** 2)) + draw.gauss(0, 0.002) for n in range(LAYERS))
    )
    return Attribution(
        aim="log likelihood of 24 reference answers",
        answers=24,
        total=0.121,
        first_order=sum(p.first_order for p in layers),
        layers=layers,
    )  # fmt: skip


def check() -> Check:
    return Check(24, 760, 0.0104, 0.043, 0.031, 0.052, 0.055)


def damage(**changes: Any) -> Damage:
    facts: dict[str, Any] = {
        "prompts": 24,
        "tokens": 760,
        "kl": interval(0.0102, 0.0012, 24),
        "kl_p95": 0.041,
        "kl_rms": 0.021,
        "kl_max": 0.61,
        "top1_flips": 0.029,
        "perplexity_base": 24.31,
        "perplexity_enhanced": 24.62,
        "repetition_base": 0.052,
        "repetition_enhanced": 0.055,
        "early_stop_base": 0.04,
        "early_stop_enhanced": 0.04,
        "harmful": 20,
        "refused_base": 17,
        "refused_enhanced": 16,
        "refusals_kept": 16,
    }
    return Damage(**{**facts, **changes})


def evaluation(*effects: Effect, **changes: Any) -> Evaluation:
    """changes: of its damage."""
    statistics = (
        StatisticChange("sensory-words", 1.9, 4.1, interval(2.2, 0.9, 24), 0.004),
        StatisticChange("length", 142.0, 139.0, interval(-3, 12, 24), 1.0),
    )
    return Evaluation(
        model="smollm2-135m",
        dtype="float32",
        domain="creative-writing",
        seed=0,
        effects=effects or (effect("references", 0.168, 0.119), effect("made", 0.085, 0.03)),
        damage=damage(**changes),
        specialised_kl=interval(0.024, 0.004, 24),
        affinity=Affinity(0.91, -0.21, 0.07, interval(0.28, 0.12, 24)),
        statistics=statistics,
        samples=SAMPLES,
        seconds=63.0,
        versions=VERSIONS,
    )


def doses(answers: int = 12) -> DoseCurve:
    def around(mean: float) -> Interval:
        return Interval(mean, 0.8 * mean, 1.2 * mean, 0.01, 24)

    return DoseCurve(
        "log probability per token of reference answers",
        24,
        answers,
        tuple(
            Dose(m, around(0.009 * m**2), 0.04 * m**2, around(0.2 * m - 0.06 * m**2) if answers else None)
            for m in (0.25, 0.5, 1.0, 1.5, 2.0)
        ),
    )


def full(**changes: Any) -> Explanation:
    facts: dict[str, Any] = {
        "dtype": "float32",
        "title": "Creative writing",
        "directions": (
            direction("creative-writing", "Creative writing: what sets its prompts apart", 1),
            direction("creative-writing, answers", "Creative writing: good answers", 2, position="answer"),
        ),
        "gains": tuple(
            AppliedGain(layer, d, asked, asked * 1.004)
            for layer in range(4, LAYERS)
            for d, asked in ((0, 0.9 * exp(-(((layer - 20) / 7) ** 2))), (1, 0.35 - 0.02 * (layer % 7)))
        ),
        "attribution": attribution(),
        "dose": doses(),
        "answers": SAMPLES,
        "check": check(),
        "evaluation": evaluation(),
    }
    return minimal(**{**facts, **changes})


def learnt(**changes: Any) -> Explanation:
    """Three directions a layer, learnt from a teacher."""
    acts = tuple(
        ActingDirection(
            layer=layer,
            number=k + 1,
            gain=0.4 - 0.3 * k,
            moved=1 / (1 + layer + k),
            promoted=(" imagine", "</p>", "\u202eback"),
            suppressed=(" percent", "\n\n"),
            strongest=((PROMPTS[0], 2.5),),
            weakest=((PROMPTS[1], -1.5),),
        )
        for layer in range(FEW_LAYERS)
        for k in range(3)
    )
    facts: dict[str, Any] = {
        "title": "Education",
        "directions": tuple(
            direction("education", "Education", seed, layers=FEW_LAYERS, teacher="expert prompt 5f3a", likenesses=None)
            for seed in (4, 5, 6)
        ),
        "gains": tuple(AppliedGain(layer, k, 0.4 - 0.3 * k, None) for layer in range(FEW_LAYERS) for k in range(3)),
        "acting": Acting(3, 48, acts, tuple((layer, 1 / (1 + layer)) for layer in range(FEW_LAYERS))),
    }
    return minimal(**{**facts, **changes})


def minimal(**changes: Any) -> Explanation:
    """A direction loaded from a file with a factor for every layer: no prompts, no measurements."""
    unread: dict[str, Any] = {"layers": FEW_LAYERS, "scope": "single", "likenesses": None, "tokens": ()}
    unmeasured = ("attribution", "dose", "acting", "check", "evaluation", "learning")
    facts: dict[str, Any] = {
        "model": "smollm2-135m",
        "dtype": "bfloat16",
        "title": "enhance.txt",
        "directions": (direction("enhance.txt", "enhance.txt", 3, **unread),),
        "gains": tuple(AppliedGain(layer, 0, 0.5, None) for layer in range(FEW_LAYERS)),
        "answers": (),
        "seed": 0,
        "versions": VERSIONS,
        **dict.fromkeys(unmeasured),
    }
    return Explanation(**{**facts, **changes})
