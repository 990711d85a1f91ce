"""Model expressions such as `base+0.6 creative-writing - 0.3 formal-casual`, and the edits that they stand for."""

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import torch

from burnish.artifacts.direction import Enhancement
from burnish.errors import InputError, RefusedError
from burnish.mix import Mix, Term
from burnish.model.model import Model
from burnish.model.row_edits import Candidate
from burnish.personal.enhancing import dose_gains, fitting, plan_of
from burnish.personal.profile import Profile
from burnish.personal.store import Store
from burnish.prompts.domains import domain_names
from burnish.server.directions import Directions, language_of
from burnish.steps import Steps

LONGEST = 1000  # characters
CACHED = 64  # edits
_BASE = re.compile(r"\s*base(?:\s*$|(?=\s*\+)|(?=\s+-\s))")
Kind = Literal["loaded", "profile", "packaged"]


@dataclass(frozen=True)
class Part:
    """One term, and what its name stands for."""

    term: Term
    kind: Kind
    profile: Profile | None = None


def mix_of(text: str) -> Mix | None:
    """The mix behind `base`, None for the base model itself. Raises RefusedError: 404 for another model, 400 for a mix that cannot be read."""
    base = _BASE.match(text) if len(text) <= LONGEST else None
    if base is None:
        raise RefusedError(
            f"There is no model '{text[:100]}'. Pass `base`, or `base` with a mix behind it: base+0.6 creative-writing.",
            status=404,
            code="model_not_found",
            param="model",
        )
    weights = text[base.end() :].strip()
    try:
        return Mix.parse(weights) if weights else None
    except InputError as error:
        raise RefusedError(str(error), status=400, code="invalid_expression", param="model") from error


def expression_of(mix: Mix | None) -> str:
    """The expression of a mix, which `mix_of` reads back."""
    text = "" if mix is None else str(mix)
    if text.startswith("-"):
        return f"base - {text[1:]}"
    return f"base+{text}" if text else "base"


def parts_of(mix: Mix, directions: Directions, profiles: Mapping[str, Profile]) -> tuple[Part, ...]:
    """What each name stands for: a loaded enhancement, else a profile, else a packaged name.

    Raises RefusedError: 404 for an unknown name, 400 for a weight that what it stands for cannot take.
    """
    parts = []
    for term in mix.terms:
        if term.name in directions.loaded:
            if term.weight < 0 and bool((directions.loaded[term.name].gains * term.weight < -1).any()):
                raise _weight(term, "would turn what it strengthens around (a gain below -1)")
            parts.append(Part(term, "loaded"))
        elif term.name in profiles:
            if not 0 < term.weight <= 1:
                raise _weight(term, "is outside (0, 1]: a profile keeps its budget")
            parts.append(Part(term, "profile", profiles[term.name]))
        elif term.name in directions.editing:
            parts.append(Part(term, "packaged"))
        else:
            known = ", ".join([*directions.loaded, *profiles, *directions.editing]) or "none"
            raise RefusedError(
                f"There is nothing called '{term.name}' to add to the base model. Known names: {known}.",
                status=404,
                code="model_not_found",
                param="model",
            )
    return tuple(parts)


def domain_of(parts: tuple[Part, ...]) -> str | None:
    """The packaged domain with the largest weight."""
    terms = [p.term for p in parts if p.kind == "packaged" and p.term.name in domain_names()]
    return max(terms, key=lambda term: abs(term.weight)).name if terms else None


def dosed(model: Model, directions: Directions, terms: Sequence[Term]) -> Enhancement:
    """Packaged names with their doses in standard deviations. Uses the model when a language is first asked for."""
    plan = Enhancement.of([directions.editing[term.name] for term in terms])
    writes = directions.writes(model, language_of(terms[0].name))
    return replace(plan, gains=dose_gains(writes, plan.vectors, torch.tensor([term.weight for term in terms])))


class Expressions:
    """The edits of expressions on one model; the last ones are kept, so that equal requests share one."""

    def __init__(self, model: Model, directions: Directions, store: Store) -> None:
        self.model = model
        self.directions = directions
        self.store = store
        self._candidates: OrderedDict[str, Candidate] = OrderedDict()
        self._lock = threading.Lock()  # read on the event loop, written by the engine

    def key_of(self, parts: tuple[Part, ...]) -> str:
        """What the edit depends on: names, weights and what they stand for. A profile enters with all that it says."""
        described = [(str(p.term), p.kind, _described(p.profile) if p.profile else "") for p in parts]
        return hashlib.sha256(repr((self.model.fingerprint, described)).encode()).hexdigest()

    def known(self, key: str) -> Candidate | None:
        with self._lock:
            if key in self._candidates:
                self._candidates.move_to_end(key)
            return self._candidates.get(key)

    def clear(self) -> None:
        """Forgets all edits: one may be of a profile that is forgotten."""
        with self._lock:
            self._candidates.clear()

    def made(self, person: str, parts: tuple[Part, ...], key: str) -> Steps[Candidate]:
        """The edit, from what is kept or made now. Raises InputError, WrongModelError and ModelError of what it is made of."""
        yield
        if (cached := self.known(key)) is not None:
            return cached
        made: list[Enhancement] = []
        for part in parts:
            if part.profile is not None:
                enhancement = yield from self._of_profile(person, part.profile)
                made += [] if enhancement is None else [enhancement.scaled(part.term.weight)]
            elif part.kind == "loaded":
                made.append(self.directions.loaded[part.term.name].scaled(part.term.weight))
        doses = [part.term for part in parts if part.kind == "packaged"]
        if doses:
            made.append(dosed(self.model, self.directions, doses))
        name = expression_of(Mix(tuple(part.term for part in parts)))
        candidate = Candidate(name, reduce(Enhancement.combined, made) if made else None)
        with self._lock:
            self._candidates[key] = candidate
            while len(self._candidates) > CACHED:
                self._candidates.popitem(last=False)
        return candidate

    def _of_profile(self, person: str, profile: Profile) -> Steps[Enhancement | None]:
        """A profile within its budget; None for one that says nothing yet. What was measured is kept with the profile."""
        if not profile.active:
            return None
        missing = [name for name in profile.active if name not in self.directions.editing]
        if missing:
            raise InputError(
                f"The profile '{profile.name}' needs the directions of {', '.join(missing)}, which this server has not. "
                "Start it without --no-profiles."
            )
        writes = self.directions.writes(self.model, profile.language)
        plan = plan_of(self.model, profile, self.directions.editing, writes=writes)
        yield
        known = yield from fitting(self.model, profile, plan)
        if known != profile:
            self.store.remember(person, known)
            yield
        return plan.scaled(known.scales[self.model.fingerprint].value)


def _described(profile: Profile) -> str:
    """Everything of a profile that its edit depends on; what was measured follows from it."""
    return replace(profile, scales={}, units=None).as_json()


def _weight(term: Term, why: str) -> RefusedError:
    return RefusedError(
        f"The weight {term.weight:g} of '{term.name}' {why}. Pass another weight.",
        status=400,
        code="invalid_expression",
        param="model",
    )
