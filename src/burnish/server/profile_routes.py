"""A person's own profiles over HTTP."""

import asyncio
import random
from dataclasses import asdict, replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from burnish.errors import InputError, RefusedError
from burnish.mix import Mix, Term
from burnish.model.model import Model
from burnish.personal.choice_update import belief_of, opposites, relearned
from burnish.personal.enhancing import scaling
from burnish.personal.pair_proposal import choices_of
from burnish.personal.profile import Choice, Profile, checked_names, describe
from burnish.personal.store import Store, new_profile
from burnish.prompts import Prompt
from burnish.server.dependencies import Person, TheService, while_connected
from burnish.server.directions import Directions, title_of
from burnish.server.expressions import dosed, expression_of
from burnish.server.service import Service
from burnish.server.wire import ChoiceRequest, NewProfile, PairRequest, Sliders
from burnish.steps import Steps

router = APIRouter(prefix="/api/profiles")
SMALLEST = 0.005  # a dose below is left out of an expression


@router.get("")
async def profiles(service: TheService, person: Person) -> JSONResponse:
    return JSONResponse({"profiles": [shown(p) for p in (await service.profiles(person)).values()]})


@router.post("")
async def make(body: NewProfile, service: TheService, person: Person) -> JSONResponse:
    _require_profiles(service)
    Term(1.0, body.name)  # raises for a name that no expression could hold
    made = new_profile(body.name, budget=body.budget, keep_text=body.keep_text, language=body.language)
    if body.name in service.directions.names:
        raise _taken(body.name, "an enhancement or a packaged direction has it")
    try:
        await asyncio.to_thread(service.store.add, person, made)
    except InputError:
        if body.name in await service.profiles(person):
            raise _taken(body.name, "one of your profiles has it") from None
        raise
    return JSONResponse(shown(made), 201)


@router.get("/{name}")
async def profile(name: str, service: TheService, person: Person) -> JSONResponse:
    return JSONResponse(shown(await _profile(service, person, name)))


@router.delete("/{name}")
async def forget(name: str, service: TheService, person: Person) -> JSONResponse:
    await _profile(service, person, name)
    await asyncio.to_thread(service.store.forget, person, name)
    service.expressions.clear()
    return JSONResponse({"forgotten": name})


@router.put("/{name}/sliders")
async def sliders(name: str, body: Sliders, service: TheService, person: Person) -> JSONResponse:
    checked_names(await _profile(service, person, name), body.values)

    def move(now: Profile, choices: list[Choice]) -> Profile:
        return relearned(replace(now, sliders={n: v for n, v in {**now.sliders, **body.values}.items() if v}), choices)

    def work() -> Steps[Profile]:
        yield
        return service.store.update(person, name, "sliders", move)

    return JSONResponse(shown(await service.engine.run(person, work())))


@router.post("/{name}/pair")
async def pair(name: str, request: Request, body: PairRequest, service: TheService, person: Person) -> JSONResponse:
    """The messages do not change which two mixes are compared; they are checked, so that the page may go on with them."""
    profile = await _ready(service, person, name)
    await service.prompt_of(body.messages)
    choices = await asyncio.to_thread(service.store.choices, person, name)
    work = service.engine.run(person, _pair(service.model, service.directions, profile, choices))
    first, second = await while_connected(request, work)
    return JSONResponse({"first": first, "second": second, "seed": len(choices)})


@router.post("/{name}/choices")
async def choose(name: str, request: Request, body: ChoiceRequest, service: TheService, person: Person) -> JSONResponse:
    profile = await _ready(service, person, name)
    await service.prompt_of(body.messages)
    prompt = Prompt(tuple(m.turn for m in body.messages), body.first, body.second)
    work = _choice(service.model, service.directions, service.store, person, profile, prompt, float(body.outcome))
    return JSONResponse(shown(await while_connected(request, service.engine.run(person, work))))


@router.post("/{name}/undo")
async def undo(name: str, service: TheService, person: Person) -> JSONResponse:
    await _profile(service, person, name)
    what, now = await asyncio.to_thread(service.store.undo, person, name)
    return JSONResponse({"undone": what, "profile": shown(now)})


def shown(profile: Profile) -> dict[str, Any]:
    """A profile as the page reads it; strongest coefficients first."""
    accuracy = profile.accuracy
    coefficients = sorted(profile.coefficients.items(), key=lambda entry: -abs(entry[1].mean))
    return {
        "name": profile.name,
        "language": profile.language,
        "budget": profile.budget,
        "says": describe(profile),
        "choices": profile.choices,
        "keep_text": profile.keep_text,
        "accuracy": accuracy and {"share": accuracy.share, "low": accuracy.low, "high": accuracy.high},
        "sliders": profile.sliders,
        "coefficients": [
            {"name": name, "title": title_of(name), "sure": c.sure, **asdict(c)} for name, c in coefficients
        ],
        "model": expression_of(Mix((Term(1.0, profile.name),))),
    }


async def _profile(service: Service, person: str, name: str) -> Profile:
    """Raises RefusedError (404) for a name that the person has not."""
    known = await service.profiles(person)
    if name not in known:
        raise RefusedError(
            f"You have no profile '{name[:100]}' (there are: {', '.join(known) or 'none yet'}). Check the name, or make it.",
            status=404,
            code="profile_not_found",
        )
    return known[name]


async def _ready(service: Service, person: str, name: str) -> Profile:
    """A profile that can be learned from answers here."""
    profile = await _profile(service, person, name)
    _require_profiles(service)
    return profile


def _require_profiles(service: Service) -> None:
    if not service.directions.editing:
        raise InputError("This server was started without profiles. Start it without --no-profiles.")


def _taken(name: str, why: str) -> RefusedError:
    return RefusedError(
        f"The name '{name}' is taken: {why}. Pass another.", status=409, code="name_taken", param="name"
    )


def _pair(model: Model, directions: Directions, profile: Profile, choices: list[Choice]) -> Steps[tuple[str, str]]:
    """Two opposite mixes within the budget as expressions, in random order."""
    names = list(directions.read_in(profile.language))
    mixes = opposites(profile, names, belief_of(profile, choices, names))
    doses = [[Term(c.mean, name) for name, c in mix.coefficients.items() if c.mean] for mix in mixes]
    yield
    plans = [dosed(model, directions, terms) for terms in doses]
    yield
    scales = yield from scaling(model, plans, profile.budget, profile.language)
    expressions = []
    for terms, scale in zip(doses, scales, strict=True):
        scaled = [(round(scale * term.weight, 3), term.name) for term in terms]
        notable = tuple(Term(weight, name) for weight, name in scaled if abs(weight) >= SMALLEST)
        expressions.append(expression_of(Mix(notable) if notable else None))
    random.Random(len(choices)).shuffle(expressions)
    return expressions[0], expressions[1]


def _choice(
    model: Model, directions: Directions, store: Store, person: str, profile: Profile, prompt: Prompt, outcome: float
) -> Steps[Profile]:
    units = directions.units(model, profile.language)
    yield
    (made,) = choices_of(model, directions.read_in(profile.language), units, [prompt])
    yield
    return store.update(person, profile.name, "1 choice", relearned, [replace(made, outcome=outcome)])
