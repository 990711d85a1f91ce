"""From choices to coefficients, and to the two mixes that are most worth comparing next."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from burnish.personal.preference_model import Gaussian, foreseen, learned
from burnish.personal.profile import Choice, Coefficient, Profile


def relearned(profile: Profile, choices: Sequence[Choice]) -> Profile:
    """The profile with its coefficients learned anew from everything it rests on. Pure: equal inputs, equal profile."""
    if not choices:
        given = {name: Coefficient(value, 0.0, "sliders") for name, value in profile.sliders.items() if value}
        return profile.with_coefficients(given, 0, None)
    names = sorted({*profile.sliders, *(name for c in choices for name in c.first.keys() & c.second.keys())})
    asked = _given(profile, choices, names)
    belief = learned(*asked)
    rows = zip(names, belief.mean.tolist(), belief.deviation.tolist(), strict=True)
    coefficients = {name: Coefficient(mean, deviation, "choices") for name, mean, deviation in rows}
    return profile.with_coefficients(coefficients, len(choices), foreseen(*asked))


def belief_of(profile: Profile, choices: Sequence[Choice], names: Sequence[str]) -> Gaussian:
    """What is believed of the coefficients of these names."""
    return learned(*_given(profile, choices, names))


def opposites(profile: Profile, names: Sequence[str], belief: Gaussian) -> tuple[Profile, Profile]:
    """Two mixes one standard deviation to either side of what is believed, along what is known least.

    That line is the leading eigenvector of the covariance: of all lines through the mean, answers along it tell most.
    """
    values, vectors = torch.linalg.eigh(belief.covariance)
    step = values[-1].sqrt() * vectors[:, -1]
    step = step * torch.sign(step[step.abs().argmax()])  # an eigenvector has no sign of its own
    return _mix(profile, names, belief.mean + step), _mix(profile, names, belief.mean - step)


def vector(values: Mapping[str, float], names: Sequence[str]) -> Tensor:
    """Values in the order of the names, [d]; zero for a name that is not there."""
    return torch.tensor([values.get(name, 0.0) for name in names], dtype=torch.float64)


def _mix(profile: Profile, names: Sequence[str], values: Tensor) -> Profile:
    made = {name: Coefficient(value, 0.0, "choices") for name, value in zip(names, values.tolist(), strict=True)}
    return replace(profile, coefficients=made, scales={})


def _given(profile: Profile, choices: Sequence[Choice], names: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """(differences [n, d], outcomes [n], start [d]). Of a name that one side was not read on, a choice says nothing."""
    rows = [[c.first[n] - c.second[n] if n in c.first and n in c.second else 0.0 for n in names] for c in choices]
    differences = torch.tensor(rows, dtype=torch.float64).reshape(len(choices), len(names))
    outcomes = torch.tensor([c.outcome for c in choices], dtype=torch.float64)
    return differences, outcomes, vector(profile.sliders, names)
