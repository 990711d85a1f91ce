"""The facts of one direction: how well it separates, what it says and is like."""

import torch
from torch import Tensor

from burnish.artifacts.direction import Direction
from burnish.catalogue import named_directions, names_in
from burnish.explaining.facts import (
    DirectionFacts,
    LayerQuality,
    LayerTokens,
    Likeness,
    Likenesses,
    TokenWeight,
)
from burnish.maths.decomposition import kurtosis, parts_of
from burnish.model.logit_lens import vocabulary_weights
from burnish.model.model import Model
from burnish.prompts.axes import axis_names, load_axis
from burnish.prompts.domains import domain_names, load_domain
from burnish.steps import Progress

TOKENS = 12  # listed of each layer


def direction_facts(
    model: Model, direction: Direction, *, name_language: str | None = "en", progress: Progress | None = None
) -> DirectionFacts:
    """Everything the page says of one direction. name_language: None leaves out the comparison with named directions, which a learnt one, another thing in every layer, never has."""
    name = direction.provenance.enhance
    return DirectionFacts(
        name=name,
        title=title_of(name),
        layer=direction.layer,
        scope=direction.scope,
        site=direction.site,
        position=direction.provenance.position,
        found=direction.found,
        teacher=direction.provenance.teacher,
        enhance_prompts=direction.provenance.enhance_prompts,
        normal_prompts=direction.provenance.normal_prompts,
        held_out=direction.report.held_out,
        quality=quality(direction),
        tokens=layer_tokens(model, direction.used(), single=direction.scope == "single"),
        likenesses=None
        if name_language is None or direction.learned
        else likenesses(model, direction, name_language, progress),
    )


def title_of(name: str) -> str:
    """A packaged domain's title, any other set's name."""
    base = name.removesuffix(" references")
    return load_domain(base).title if base in domain_names() else name


def quality(direction: Direction) -> tuple[LayerQuality, ...]:
    report = direction.report
    halves: list[float | None] = [*report.split_half_cosine] or [None] * len(report.auroc)
    return tuple(
        LayerQuality(layer, *values)
        for layer, values in enumerate(
            zip(
                report.auroc,
                report.null_auroc,
                report.d_prime,
                halves,
                report.largest_share,
                strict=True,
            )
        )
    )


def layer_tokens(model: Model, vectors: Tensor, *, single: bool) -> tuple[LayerTokens, ...]:
    """Tokens promoted and suppressed, one entry a layer (one in all for a single direction)."""
    chosen = [len(vectors) - 1] if single else range(len(vectors))
    tokens = []
    for layer in chosen:
        weights = vocabulary_weights(model, vectors[layer : layer + 1])[0]
        ends = [weights.topk(min(TOKENS, len(weights)), largest=largest) for largest in (True, False)]
        listed = [
            tuple(
                TokenWeight(str(model.tokenizer.decode([i])), v)
                for i, v in zip(e.indices.tolist(), e.values.tolist(), strict=True)
            )
            for e in ends
        ]
        tokens.append(LayerTokens(layer, listed[0], listed[1], float(kurtosis(weights))))
    return tuple(tokens)


def likenesses(model: Model, direction: Direction, language: str, progress: Progress | None = None) -> Likenesses:
    """Cosines with every named direction of a language at the direction's layer and site, and the joint decomposition."""
    names = names_in(language)
    named = named_directions(model, names, site=direction.site, progress=progress)
    layer = direction.layer
    table = torch.stack([named[name].vectors[layer] for name in names])
    parts = parts_of(direction.used()[layer], table)
    hidden = table.shape[1]
    listed = [
        Likeness(
            name,
            "axis" if name in axis_names() else "domain",
            load_axis(name).poles if name in axis_names() else None,
            float(parts.cosines[i]),
            float(parts.coefficients[i]),
        )
        for i, name in enumerate(names)
    ]
    return Likenesses(
        named=tuple(sorted(listed, key=lambda likeness: -abs(likeness.cosine))),
        unexplained=parts.unexplained,
        unexplained_random=1 - len(names) / hidden,
        chance=1.96 / hidden**0.5,
    )
