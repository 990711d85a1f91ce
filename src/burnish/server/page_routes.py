"""What the page asks for beside answers: names, and what an expression does."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from burnish.languages import languages
from burnish.personal.profile import BUDGET
from burnish.prompts.axes import axis_names, load_axis
from burnish.prompts.domains import load_domain
from burnish.server import measurements
from burnish.server.dependencies import Person, TheService, while_connected
from burnish.server.directions import Directions
from burnish.server.expressions import domain_of
from burnish.server.wire import ExpressionRequest

router = APIRouter(prefix="/api")


@router.get("/status")
async def status(service: TheService, person: Person) -> JSONResponse:
    engine = service.engine
    return JSONResponse(
        {
            "model": service.model.name,
            "person": person,
            "languages": list(languages()),
            "budget": BUDGET,
            "limits": {"tokens": service.options.tokens_limit, "context": service.context},
            "ready": engine.ready,
            "running": engine.running,
            "waiting": engine.waiting,
        }
    )


@router.get("/directions")
async def directions(service: TheService, person: Person) -> JSONResponse:
    return JSONResponse({"directions": listed(service.directions)})


@router.post("/damage")
async def damage(request: Request, body: ExpressionRequest, service: TheService, person: Person) -> JSONResponse:
    async def work() -> dict[str, Any]:
        edit = await service.edit_of(person, body.model)
        steps = measurements.damage(service.model, edit.candidate.enhancement, edit.language)
        return await service.measure(person, "damage", edit.key, steps)

    measured = await while_connected(request, work())
    return JSONResponse({"model": body.model, **measured, "budget": BUDGET})


@router.post("/dose")
async def dose(request: Request, body: ExpressionRequest, service: TheService, person: Person) -> JSONResponse:
    async def work() -> dict[str, Any]:
        edit = await service.edit_of(person, body.model)
        steps = measurements.dose(service.model, edit.candidate.enhancement, edit.language, domain_of(edit.parts))
        return await service.measure(person, "dose", edit.key, steps)

    measured = await while_connected(request, work())
    return JSONResponse({"model": body.model, **measured, "budget": BUDGET})


def listed(directions: Directions) -> list[dict[str, Any]]:
    """Everything that an expression may name on this model, without the person's own profiles."""
    rows = []
    for name, enhancement in directions.loaded.items():
        about = f"Enhancement of rank {enhancement.rank} in {len(enhancement.edited_layers())} layers"
        rows.append(_row(name, "enhancement", name, about, None, None, 0.0))
    for name in directions.editing:
        if name in axis_names():
            axis = load_axis(name)
            rows.append(_row(name, "axis", axis.title, axis.summary, axis.language, list(axis.poles), -2.0))
        else:
            domain = load_domain(name)
            rows.append(_row(name, "domain", domain.title, domain.summary, domain.language, None, -1.0))
    return rows


def _row(
    name: str, kind: str, title: str, about: str, language: str | None, poles: list[str] | None, low: float
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "title": title,
        "description": about,
        "language": language,
        "poles": poles,
        "low": low,
        "high": 2.0,
    }
