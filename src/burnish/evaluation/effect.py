"""Did the speciality get stronger? Preference shift and likelihood on pairs, and the affinity of generated answers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from burnish.evaluation.pairs import Pair, PairKind, pair_items
from burnish.layers import layer_index
from burnish.maths.intervals import Interval, interval, interval_above, separating_direction
from burnish.model.capture import Tokens, captured
from burnish.model.model import Model
from burnish.model.scoring import Item, Scores, TokenScores, likelihood_changes
from burnish.steps import Progress, advancing

PROBE_LAYER = "60%"
SLACK = 1.05  # a measured damage within 5 % of the budget is inside
Verdict = Literal["gain", "hollow", "none", "loss"]


@dataclass(frozen=True)
class Effect:
    """Changes on pairs, in nats per token, with intervals over prompts.

    Any disturbance makes the base model's own samples less likely, by KL(base || edited) a token on average, and so "wins" a
    shift against them. `above` is therefore the figure to trust: the shift minus that of random directions at the same
    damage, pair by pair.
    """

    kind: PairKind
    pairs: int
    tokens: int
    shift: Interval  # of log p(chosen) - log p(rejected)
    above: Interval  # of the shift above that of random directions
    likelihood: Interval  # of log p(chosen): a shift won by making both answers unlikely is no win


def word_of(effect: Effect, *, sure: bool | None = None) -> Verdict:
    """One effect in a word: hollow when the good answer became less likely, none when it is not sure; by default it is where its
    interval is beyond zero."""
    if not (effect.above.excludes_zero if sure is None else sure):
        return "none"
    if effect.above.mean < 0:
        return "loss"
    return "hollow" if effect.likelihood.high < 0 else "gain"


def ships(load: float, gains: Iterable[tuple[float, float]]) -> bool:
    """Whether a strength is one to recommend.

    Args:
        load: use of the tightest bound on damage; 1 is the limit, and 5 % beyond it are inside.
        gains: of each kind of pairs, how large the effect is at least, and how good answers' likelihood changed at most (the
            ends of intervals, where there are any). The one has to be above zero and the other may not be below.
    """
    return load <= SLACK and all(effect > 0 and likelihood >= 0 for effect, likelihood in gains)


def pair_changes(base: Sequence[TokenScores], scores: Sequence[TokenScores]) -> tuple[Tensor, Tensor]:
    """Change of the log probability per token of each pair's chosen and rejected answer; scores of `pair_items`."""
    chosen, rejected = likelihood_changes(base, scores).chunk(2)
    return chosen, rejected


def shifts(scores: Scores, candidates: Sequence[int]) -> Tensor:
    """The shift of each pair under some candidates, [candidates, pairs]; scores of `pair_items`."""
    return torch.stack([torch.sub(*pair_changes(scores.base, scores.candidates[i])) for i in candidates])


def effect_of(
    base: Sequence[TokenScores], scores: Sequence[TokenScores], kind: PairKind, randoms: Tensor, *, seed: int = 0
) -> Effect:
    """base, scores: of `pair_items`; randoms: the `shifts` [directions, pairs] of random directions at the same damage."""
    chosen, rejected = pair_changes(base, scores)
    return Effect(
        kind=kind,
        pairs=len(chosen),
        tokens=sum(len(b.log_probability) for b in base),
        shift=interval(chosen - rejected, seed=seed),
        above=interval_above((chosen - rejected)[None], randoms, seed=seed),
        likelihood=interval(chosen, seed=seed),
    )


@dataclass(frozen=True)
class Probe:
    """A frozen linear reading of the base model: does an answer look like the speciality's?"""

    layer: int
    weights: Tensor  # [hidden]
    bias: float
    accuracy: float  # on pairs it was not fitted on
    held_out: int  # answers


def fit_probe(model: Model, tune: Sequence[Pair], report: Sequence[Pair], *, progress: Progress | None = None) -> Probe:
    """Separates chosen from rejected answers by the mean hidden state over their tokens, at 60 % of the depth."""
    layer = layer_index(PROBE_LAYER, model.anatomy.layers)
    items = pair_items(model, tune) + pair_items(model, report)
    states = answer_states(model, items, layer, progress=progress)
    fitted, held_out = states[: 2 * len(tune)].chunk(2), states[2 * len(tune) :].chunk(2)
    weights, bias = separating_direction(fitted[0], fitted[1])
    right = torch.cat([held_out[0] @ weights + bias > 0, held_out[1] @ weights + bias < 0])
    return Probe(layer, weights, bias, float(right.double().mean()), len(right))


def answer_states(model: Model, items: Sequence[Item], layer: int, *, progress: Progress | None = None) -> Tensor:
    """Mean hidden state of the base model over each answer's tokens at a layer, [items, hidden], float64."""
    sequences = [Tokens(i.prompt + i.answer, len(i.prompt), len(i.prompt) + len(i.answer) - 1) for i in items]
    advance = advancing(progress, "reading answers", len(items))
    return captured(model, sequences, lambda states: states[:, layer].double(), last_layer=layer, progress=advance)


@dataclass(frozen=True)
class Affinity:
    """How much generated answers read like the speciality's, in the probe's units."""

    accuracy: float  # of the probe on held-out pairs: near 0.5 it says nothing
    base: float
    enhanced: float
    change: Interval


def affinity(
    model: Model, probe: Probe, prompts: Sequence[list[int]], base: Sequence[list[int]], enhanced: Sequence[list[int]]
) -> Affinity:
    """Applies the probe to the base model's reading of base and enhanced answers (tokens); empty answers are left out."""
    rows = [(p, b, e) for p, b, e in zip(prompts, base, enhanced, strict=True) if b and e]
    items = [Item(p, b) for p, b, _ in rows] + [Item(p, e) for p, _, e in rows]
    scores = answer_states(model, items, probe.layer) @ probe.weights + probe.bias
    before, after = scores.chunk(2)
    return Affinity(probe.accuracy, float(before.mean()), float(after.mean()), interval(after - before))
