"""Where an answer lies on named directions, as the base model reads it: one pass, nothing is generated.

The features of an answer are coordinates of the mean hidden state over its tokens: least squares on the directions, all
of one layer together, so that what two names share is counted once (plain projections would count it for both). A small
ridge keeps names that are nearly parallel from cancelling each other with large numbers. They are divided by their
spread over the base model's own everyday answers, so that coefficients of different names, and of different models, can
be compared.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from burnish.artifacts.direction import Direction
from burnish.errors import InputError, ModelError
from burnish.evaluation.pairs import Answered, greedy_answers
from burnish.model.capture import answer_sequences, captured
from burnish.model.model import Model
from burnish.options import EvaluateOptions, Site
from burnish.personal.profile import Units
from burnish.prompts import Prompt
from burnish.prompts.domains import load_general
from burnish.steps import Progress, advancing

RIDGE = 0.01  # added to the Gram matrix of the directions, whose diagonal is 1
READ_TOKENS = 96  # longest part of an answer that is read
EVERYDAY = EvaluateOptions(prompts=32, tokens=48)  # everyday answers that the spread is measured on
FEWEST = 8  # everyday answers that a spread can be measured on


def everyday_answers(model: Model, language: str, progress: Progress | None = None) -> list[Answered]:
    """The base model's own answers to everyday prompts of a language, cached on disk. Raises ModelError for too few."""
    rows = greedy_answers(model, load_general(language).prompts.spread(EVERYDAY.prompts), EVERYDAY, progress)
    if len(rows) < FEWEST:
        raise ModelError(
            f"The model answers only {len(rows)} of {EVERYDAY.prompts} everyday prompts with text: there is nothing to "
            "compare with. Check its chat template and its end-of-text token."
        )
    return rows


def answered(model: Model, rows: Sequence[tuple[Prompt, str]]) -> list[Answered]:
    """Prompts and answers as tokens. Raises InputError for an answer without text."""
    answers = []
    for prompt, text in rows:
        tokens = model.encode(text)[:READ_TOKENS]
        if not tokens:
            raise InputError(
                f"An answer to '{prompt.text[:60]}' is empty: it says nothing of a taste. Leave the row out."
            )
        answers.append(Answered(Prompt(prompt.messages), tokens))
    return answers


def coordinates(states: Tensor, directions: Tensor) -> Tensor:
    """Least-squares coordinates with a ridge, [n, k], of states [n, hidden] on unit vectors [k, hidden]; float64."""
    rows = directions.double()
    gram = rows @ rows.T + RIDGE * torch.eye(len(rows), dtype=torch.float64)
    solved: Tensor = torch.linalg.solve(gram, rows @ states.double().T)
    return solved.T


def answer_means(
    model: Model, rows: Sequence[Answered], *, site: Site, layer: int | None = None, progress: Progress | None = None
) -> Tensor:
    """Mean state over each answer's tokens: [n, layers, hidden], at one layer [n, hidden]. Raises ModelError if not finite."""
    sequences = answer_sequences(model, [r.prompt for r in rows], [r.answer for r in rows])
    each = slice(None) if layer is None else layer
    advance = advancing(progress, "reading answers", len(rows))
    states = captured(model, sequences, lambda batch: batch[:, each], site=site, last_layer=layer, progress=advance)
    if not bool(torch.isfinite(states).all()):
        raise ModelError(
            "The hidden states are not finite: the model's number type overflows. Load it with --dtype float32."
        )
    return states


def raw_features(
    model: Model, directions: Mapping[str, Direction], rows: Sequence[Answered], progress: Progress | None = None
) -> Tensor:
    """Coordinates before they are divided by their spread, [n, names] in the mapping's order."""
    names = list(directions)
    features = torch.zeros(len(rows), len(names), dtype=torch.float64)
    places = [(direction.site, direction.layer) for direction in directions.values()]
    for site, layer in sorted(set(places)):
        members = [i for i, place in enumerate(places) if place == (site, layer)]
        vectors = torch.stack([directions[names[i]].vectors[layer] for i in members])
        states = answer_means(model, rows, site=site, layer=layer, progress=progress)
        features[:, members] = coordinates(states, vectors)
    return features


def units_of(
    model: Model, directions: Mapping[str, Direction], language: str, progress: Progress | None = None
) -> Units:
    """The spread of each feature over everyday answers. Raises as `everyday_answers`."""
    rows = everyday_answers(model, language, progress)
    spread = raw_features(model, directions, rows, progress).std(0)
    return Units(model.name, model.fingerprint, dict(zip(directions, spread.tolist(), strict=True)))


def features_of(
    model: Model,
    directions: Mapping[str, Direction],
    units: Units,
    rows: Sequence[Answered],
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """The features of each answer, by name, in units. Raises InputError for units of another model or of fewer names."""
    if units.fingerprint != model.fingerprint or not set(directions) <= set(units.spread):
        raise InputError(
            f"These units are those of {units.model} ({', '.join(units.spread)}), and {model.name} is read on other directions. "
            "Measure its own units."
        )
    spread = torch.tensor([units.spread[name] for name in directions], dtype=torch.float64)
    values = raw_features(model, directions, rows, progress) / spread
    return [dict(zip(directions, row, strict=True)) for row in values.tolist()]
