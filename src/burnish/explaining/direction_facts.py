"""The facts of one direction: how well it separates, who writes it, where prompts lie on it, what it says and is like."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from burnish.artifacts.direction import Direction
from burnish.catalogue import named_directions, names_in
from burnish.explaining.facts import (
    Coordinate,
    Corpus,
    CorpusText,
    CorpusToken,
    DirectionFacts,
    LayerQuality,
    LayerTokens,
    Likeness,
    Likenesses,
    Part,
    ProjectedSet,
    Role,
    TokenWeight,
    Writer,
)
from burnish.explaining.prompt_sets import Sets, find_options
from burnish.finding import Progress, sequences_of
from burnish.maths.decomposition import kurtosis, parts_of, principal_axes
from burnish.maths.statistics import unit
from burnish.model.capture import Tokens, capture
from burnish.model.logit_lens import token_projections, vocabulary_weights
from burnish.model.model import Model
from burnish.prompts import PromptSet
from burnish.prompts.axes import axis_names, load_axis
from burnish.prompts.domains import domain_names, load_domain

PROMPTS = 24  # of each set that are read again
TOKENS = 12  # listed of each layer
COORDINATES = 8
EXAMPLES = 8  # of a corpus, at each end
CONTEXT = 8  # tokens shown before and after one


def direction_facts(
    model: Model,
    direction: Direction,
    sets: Sets | None,
    *,
    corpus: PromptSet | None = None,
    name_language: str | None = "en",
    progress: Progress | None = None,
) -> DirectionFacts:
    """Everything the page says of one direction. sets: None leaves out what needs its prompts; name_language: None leaves out the
    comparison with named directions."""
    vector = direction.used()[direction.layer]
    name = direction.provenance.enhance
    facts = DirectionFacts(
        name=name,
        title=title_of(name),
        layer=direction.layer,
        scope=direction.scope,
        site=direction.site,
        position=direction.provenance.position,
        found=direction.found,
        enhance_prompts=direction.provenance.enhance_prompts,
        normal_prompts=direction.provenance.normal_prompts,
        held_out=direction.report.held_out,
        quality=quality(direction),
        cosine_map=_rows(unit(direction.vectors.double()) @ unit(direction.vectors.double()).T),
        coordinates=coordinates(vector),
        tokens=layer_tokens(model, direction.used(), single=direction.scope == "single"),
        writers=(),
        projected=(),
        likenesses=None if name_language is None else likenesses(model, direction, name_language, progress),
        corpus=None if corpus is None else corpus_facts(model, corpus, vector, direction, progress),
    )
    if sets is None:
        return facts
    writers, own = written(model, direction, sets, progress)
    if bool((direction.vectors == direction.vectors[:1]).all()) and own is not None:
        facts = replace(
            facts, cosine_map=_rows(own @ own.T)
        )  # the file holds one vector: each layer's own, found again
    return replace(facts, writers=writers, projected=projected(model, direction, sets, progress))


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
                report.cosine_with_chosen,
                report.largest_share,
                strict=True,
            )
        )
    )


def coordinates(vector: Tensor) -> tuple[Coordinate, ...]:
    exact = unit(vector.double())
    largest = exact.abs().topk(min(COORDINATES, len(exact))).indices.tolist()
    return tuple(Coordinate(i, float(exact[i]), float(exact[i] ** 2)) for i in largest)


def layer_tokens(model: Model, vectors: Tensor, *, single: bool) -> tuple[LayerTokens, ...]:
    """Tokens promoted and suppressed, one entry a layer (one in all for a single direction)."""
    chosen = [len(vectors) - 1] if single else range(len(vectors))
    found = []
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
        found.append(LayerTokens(layer, listed[0], listed[1], float(kurtosis(weights))))
    return tuple(found)


def likenesses(model: Model, direction: Direction, language: str, progress: Progress | None = None) -> Likenesses:
    """Cosines with every named direction of a language at the direction's layer and site, and the joint decomposition."""
    names = names_in(language)
    named = named_directions(model, names, site=direction.site, progress=progress)
    layer = direction.layer
    table = torch.stack([named[name].vectors[layer] for name in names])
    parts = parts_of(direction.used()[layer], table)
    hidden = table.shape[1]
    return Likenesses(
        named=tuple(
            Likeness(
                name,
                "axis" if name in axis_names() else "domain",
                load_axis(name).poles if name in axis_names() else None,
                float(parts.cosines[i]),
                float(parts.coefficients[i]),
            )
            for i, name in enumerate(names)
        ),
        unexplained=parts.unexplained,
        unexplained_random=1 - len(names) / hidden,
        chance=1.96 / hidden**0.5,
    )


def written(
    model: Model, direction: Direction, sets: Sets, progress: Progress | None = None
) -> tuple[tuple[Writer, ...], Tensor | None]:
    """Shares of the separation at the chosen layer written by the embedding, each attention and each feed-forward network, along
    the direction; and the unit mean differences of every layer [layers, hidden] at the direction's site.

    The residual stream is a sum, so the parts add up exactly; what a block adds beyond its attention is called feed-forward.
    """
    layer, vector = direction.layer, direction.used()[direction.layer].double()
    rows = [sequences_of(model, s.spread(PROMPTS), find_options(direction), progress) for s in sets.tune]
    embedding = _mean_difference(model, rows, "embedding")[0]
    stream = _mean_difference(model, rows, "residual")
    attention = _mean_difference(model, rows, "attention")
    below = torch.cat([embedding[None], stream[:-1]])
    shares: list[tuple[int, Part, float]] = [(-1, "embedding", float(embedding @ vector))]
    for index in range(layer + 1):
        shares.append((index, "attention", float(attention[index] @ vector)))
        shares.append((index, "feed-forward", float((stream[index] - below[index] - attention[index]) @ vector)))
    total = float(stream[layer] @ vector)
    own = stream if direction.site == "residual" else attention
    lengths = own.norm(dim=1, keepdim=True)
    mapped = None if bool((lengths == 0).any()) else own / lengths
    return tuple(Writer(index, part, value / total) for index, part, value in shares), mapped


def _mean_difference(model: Model, rows: list[list[Tokens]], site: str) -> Tensor:
    """mean(enhance) - mean(normal), [layers, hidden], float64."""
    layers = 1 if site == "embedding" else model.anatomy.layers
    total = torch.zeros(layers, model.anatomy.hidden_size, dtype=torch.float64)
    counts = [len(rows[0]), -len(rows[1])]

    def add(members: list[int], states: Tensor) -> None:
        for i, state in zip(members, states, strict=True):
            total.add_(state.double() / counts[i >= len(rows[0])])

    capture(model, rows[0] + rows[1], add, site=site)  # type: ignore[arg-type]
    return total


def projected(
    model: Model, direction: Direction, sets: Sets, progress: Progress | None = None
) -> tuple[ProjectedSet, ...]:
    """Held-out prompts on the direction, and in the plane of the tuning prompts' two principal axes."""
    listed: list[tuple[PromptSet, Role]] = [(sets.held_out[0], "enhance"), (sets.held_out[1], "normal")]
    if sets.protect is not None:
        listed.append((sets.protect, "protect"))
    fitted = [_states(model, s.spread(PROMPTS), direction, progress) for s in sets.tune]
    mean, axes = principal_axes(torch.cat(fitted))
    states = [_states(model, s.spread(2 * PROMPTS), direction, progress) for s, _ in listed]
    vector = direction.used()[direction.layer].double()
    everyday = states[1] @ vector
    centre, spread = everyday.mean(), everyday.std().clamp_min(1e-30)
    return tuple(
        ProjectedSet(
            name=prompts.name,
            role=role,
            values=tuple(((rows @ vector - centre) / spread).tolist()),
            points=tuple((float(x), float(y)) for x, y in (rows - mean) @ axes.T),
        )
        for (prompts, role), rows in zip(listed, states, strict=True)
    )


def _states(model: Model, prompts: PromptSet, direction: Direction, progress: Progress | None) -> Tensor:
    """[prompts, hidden] at the direction's layer, site and position, float64."""
    sequences = sequences_of(model, prompts, find_options(direction), progress)
    found = torch.zeros(len(sequences), model.anatomy.hidden_size, dtype=torch.float64)

    def keep(rows: list[int], states: Tensor) -> None:
        found[rows] = states[:, direction.layer].double()

    capture(model, sequences, keep, site=direction.site, last_layer=direction.layer)
    return found


def corpus_facts(
    model: Model, corpus: PromptSet, vector: Tensor, direction: Direction, progress: Progress | None = None
) -> Corpus:
    """The texts (a row's prompt and answer) and tokens that project most and least; the first token, whose state is unlike all
    others, is left out."""
    texts = ["\n".join([p.text, p.answer] if p.answer else [p.text]) for p in corpus.prompts]
    tokens = [model.encode(t, special=True)[:512] for t in texts]
    kept = [(text, row) for text, row in zip(texts, tokens, strict=True) if len(row) > 1]
    found = token_projections(
        model, [row for _, row in kept], vector[None], direction.layer, site=direction.site, progress=progress
    )
    along = [values[1:, 0] for values in found]
    means = torch.stack([values.mean() for values in along])
    flat = torch.cat(along)
    places = [(text, position + 1) for text, values in enumerate(along) for position in range(len(values))]

    def token_at(index: int) -> CorpusToken:
        text, position = places[index]
        row = kept[text][1]
        pieces = (
            row[max(0, position - CONTEXT) : position],
            [row[position]],
            row[position + 1 : position + 1 + CONTEXT],
        )
        before, token, after = (str(model.tokenizer.decode(piece)) for piece in pieces)
        return CorpusToken(before, token, after, float(flat[index]))

    def ends(values: Tensor, largest: bool) -> Sequence[int]:
        indices: list[int] = values.topk(min(EXAMPLES, len(values)), largest=largest).indices.tolist()
        return indices

    return Corpus(
        name=corpus.name,
        texts=len(kept),
        tokens=len(flat),
        most_tokens=tuple(token_at(i) for i in ends(flat, True)),
        least_tokens=tuple(token_at(i) for i in ends(flat, False)),
        most_texts=tuple(CorpusText(kept[i][0], float(means[i])) for i in ends(means, True)),
        least_texts=tuple(CorpusText(kept[i][0], float(means[i])) for i in ends(means, False)),
    )


def _rows(table: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(v, 4) for v in row) for row in table.tolist())
