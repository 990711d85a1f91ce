"""Asking: pairs of answers become choices, and two mixes answer a prompt so that comparing them tells most."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from burnish.artifacts.direction import Direction
from burnish.errors import ModelError
from burnish.model.model import Model
from burnish.personal.choice_update import belief_of, opposites, vector
from burnish.personal.enhancing import everyday_writes, plan_of, scaling
from burnish.personal.features import answered, features_of, units_of
from burnish.personal.preference_model import information, propose
from burnish.personal.profile import Choice, Profile, Units
from burnish.prompts import Prompt
from burnish.steps import Progress, advancing, finish

SAMPLES = 2  # answers of each mix, of which the pair that tells most is shown


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt, for a person to choose from."""

    prompt: str
    answers: tuple[str, str]
    features: tuple[dict[str, float], dict[str, float]]
    information: float  # nats that the answer is expected to tell about the coefficients
    fingerprint: str

    def chosen(self, outcome: float) -> Choice:
        """outcome: 1 for the first answer, 0 for the second, 0.5 for no preference."""
        text = (self.prompt, *self.answers)
        return Choice(*self.features, outcome=outcome, fingerprint=self.fingerprint, text=text)


def known_units(
    model: Model, profile: Profile, reading: Mapping[str, Direction], progress: Progress | None = None
) -> Units:
    """The profile's units where they are this model's, else measured now."""
    units = profile.units
    if units is not None and units.fingerprint == model.fingerprint and set(reading) <= set(units.spread):
        return units
    return units_of(model, reading, profile.language, progress)


def choices_of(
    model: Model,
    reading: Mapping[str, Direction],
    units: Units,
    pairs: Sequence[Prompt],
    progress: Progress | None = None,
) -> list[Choice]:
    """Prompts with a chosen (`answer`) and a `rejected` answer as choices. Raises InputError for an empty answer."""
    rows = answered(model, [(p, text or "") for p in pairs for text in (p.answer, p.rejected)])
    features = features_of(model, reading, units, rows, progress)
    return [
        Choice(chosen, rejected, 1.0, model.fingerprint, (p.text, p.answer or "", p.rejected or ""))
        for p, chosen, rejected in zip(pairs, features[::2], features[1::2], strict=True)
    ]


def compare(
    model: Model,
    profile: Profile,
    choices: Sequence[Choice],
    prompt: str,
    *,
    reading: Mapping[str, Direction],
    units: Units,
    editing: Mapping[str, Direction],
    tokens: int = 96,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Answers under two opposite mixes within the budget, in random order. Of several samples the pair that tells most
    is taken.

    reading, units: of the features; editing: `editing_directions` of the same names. Raises ModelError when a mix
    answers with nothing.
    """
    names = list(reading)
    belief = belief_of(profile, choices, names)
    mixes = opposites(profile, names, belief)
    writes = everyday_writes(model, profile.language, progress)
    plans = [plan_of(model, mix, editing, writes=writes) for mix in mixes]
    scales = finish(scaling(model, plans, profile.budget, profile.language, progress))
    texts: list[list[str]] = []
    advance = advancing(progress, "answering under two mixes", len(plans))
    for plan, scale in zip(plans, scales, strict=True):
        with model.enhanced(plan.scaled(scale)):
            drawn = model.samples([model.tokens(prompt)] * SAMPLES, tokens, seed=seed)
        answers = (str(model.tokenizer.decode(a, skip_special_tokens=True)).strip() for a in drawn)
        texts.append([answer for answer in answers if answer])
        advance(1)
    if not all(texts):
        raise ModelError("The model answers this prompt with nothing: there is nothing to compare. Ask something else.")
    both = [text for side in texts for text in side]
    features = features_of(
        model, reading, units, answered(model, [(Prompt.of(prompt), text) for text in both]), progress
    )
    rows = torch.stack([vector(row, names) for row in features])
    across = [(i, len(texts[0]) + j) for i in range(len(texts[0])) for j in range(len(texts[1]))]
    pair = list(propose(belief, rows, across))
    told = float(information(belief, rows[pair[:1]] - rows[pair[1:]]))
    random.Random(seed).shuffle(pair)
    first, second = pair
    return Comparison(prompt, (both[first], both[second]), (features[first], features[second]), told, model.fingerprint)
