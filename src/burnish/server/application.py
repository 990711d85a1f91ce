"""The app: routes, errors in OpenAI's shape, the page, and a beginning and an end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from burnish.server import openai_routes, page_routes, profile_routes
from burnish.server.access import Access, Guard
from burnish.server.dependencies import TheService
from burnish.server.metrics import CONTENT_TYPE
from burnish.server.responses import error_body
from burnish.server.service import Service
from burnish.server.wire import TAG

PAGE = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
HTTP_ERRORS = {
    400: ("The body cannot be read as JSON. Send a JSON object, in UTF-8.", "invalid_json"),
    404: ("There is no such path.", "not_found"),
    405: ("This path has no such method.", "method_not_allowed"),
}
LEFT = 499  # for the counts: the one who asked left before the reply


def make_app(service: Service, access: Access | None = None) -> FastAPI:
    """An ASGI app of one service. Its engine starts and ends with the app's lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.engine.start()
        yield
        await service.engine.finish(service.options.grace)

    app = FastAPI(
        title="Burnish", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.service = service
    app.include_router(openai_routes.router)
    app.include_router(page_routes.router)
    app.include_router(profile_routes.router)
    _add_others(app)
    _add_page(app)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _left)
    app.add_middleware(Guard, service=service, access=access or Access())
    return app


def _add_others(app: FastAPI) -> None:
    @app.get("/healthz")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def ready(service: TheService) -> JSONResponse:
        if service.engine.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse(error_body("The server takes no requests now.", 503, "not_ready"), 503)

    @app.get("/metrics")
    async def metrics(service: TheService) -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _add_page(app: FastAPI) -> None:
    """The page's files are read once, here."""
    folder = files("burnish.server") / "page"
    for path, (name, kind) in PAGE.items():
        app.add_api_route(path, _file((folder / name).read_bytes(), kind), methods=["GET"])


def _file(content: bytes, kind: str) -> Any:
    async def serve() -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8", headers={"Cache-Control": "no-cache"})

    return serve


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [part for part in first["loc"] if part != "body" and not str(part).startswith(TAG)]
    if first["type"] == "json_invalid" or not place:
        message = "The body is not a JSON object. Send one, in UTF-8, with `Content-Type: application/json`."
        return JSONResponse(error_body(message, 400, "invalid_json"), 400)
    field = str(place[0])
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    advice = "Add it." if first["type"] == "missing" else "Change it."
    message = f"`{where}`: {first['msg']}. {advice}"
    if first["type"] == "value_error":  # the server's own words
        message = f"`{where}` {first['ctx']['error']}."
    return JSONResponse(error_body(message, 400, "invalid_value", field), 400)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message, code = HTTP_ERRORS.get(error.status_code, (error.detail, None))
    return JSONResponse(error_body(message, error.status_code, code), error.status_code, error.headers)


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=LEFT)
