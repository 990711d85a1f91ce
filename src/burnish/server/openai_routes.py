"""The part of OpenAI's interface that clients use: models, chat completions, completions."""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from burnish.errors import BurnishError
from burnish.mix import Mix, Term
from burnish.model.decoding import DecodeRequest, Sampling
from burnish.server.access import Receive, Scope, Send
from burnish.server.answer_pieces import Piece, pieces_of
from burnish.server.dependencies import Person, TheService, while_connected
from burnish.server.expressions import expression_of
from burnish.server.pending import Answering
from burnish.server.responses import DONE, Answer, Kind, body_of, event
from burnish.server.service import Service
from burnish.server.wire import ChatRequest, CompletionRequest

router = APIRouter(prefix="/v1")
STARTED = int(time.time())


@router.get("/models")
async def models(service: TheService, person: Person) -> JSONResponse:
    names = [*service.directions.loaded, *await service.profiles(person), *service.directions.editing]
    listed = ["base", *(expression_of(Mix((Term(1.0, name),))) for name in dict.fromkeys(names))]
    return JSONResponse({"object": "list", "data": [_model(name) for name in listed]})


@router.get("/models/{model:path}")
async def model(model: str, service: TheService, person: Person) -> JSONResponse:
    await service.parts_of(person, model)
    return JSONResponse(_model(model))


@router.post("/chat/completions")
async def chat(request: Request, body: ChatRequest, service: TheService, person: Person) -> Response:
    return await while_connected(request, _reply(service, person, body, "chat"))


@router.post("/completions")
async def completions(request: Request, body: CompletionRequest, service: TheService, person: Person) -> Response:
    return await while_connected(request, _reply(service, person, body, "text"))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": STARTED, "owned_by": "burnish"}


async def _asked(service: Service, person: str, body: ChatRequest | CompletionRequest) -> DecodeRequest:
    candidate = (await service.edit_of(person, body.model)).candidate
    if isinstance(body, ChatRequest):
        prompt = await service.prompt_of(body.messages)
    else:
        prompt = await service.text_prompt(body.asked)
    seed = secrets.randbits(63) if body.seed is None else body.seed % 2**63
    sampling = Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=seed,
    )
    scores = body.logprobs is not None and body.logprobs is not False  # completions ask with 0
    return DecodeRequest(prompt, candidate, service.room(prompt, body.longest), sampling, scores)


async def _reply(service: Service, person: str, body: ChatRequest | CompletionRequest, kind: Kind) -> Response:
    """The whole answer, or its stream once the first piece is there: what goes wrong before is an ordinary error."""
    asked = await _asked(service, person, body)
    answering = service.answer(person, asked)
    pieces = pieces_of(answering, service.model.tokenizer, body.stops)
    answer = Answer(kind, body.model, len(asked.prompt), asked.log_probabilities, service.fingerprint[:12])
    if body.stream:
        first = await anext(pieces)
        return _Stream(_events(service, answer, first, pieces, usage=body.usage_asked), service, answering)
    try:
        return JSONResponse(answer.complete([piece async for piece in pieces]))
    finally:
        service.count(answering)


async def _events(
    service: Service, answer: Answer, first: Piece, pieces: AsyncIterator[Piece], *, usage: bool
) -> AsyncIterator[bytes]:
    for chunk in answer.opening():
        yield event(chunk)
    offset, piece = 0, first
    while True:
        for chunk in answer.chunks(piece, offset):
            yield event(chunk)
        offset += len(piece.text)
        if piece.finished:
            break
        try:
            piece = await anext(pieces)
        except BurnishError as error:
            yield event(body_of(service.public(error))[1])
            return
    if usage:
        yield event(answer.closing(piece.made))
    yield DONE


class _Stream(StreamingResponse):
    """Frees the row when the reader leaves, wherever the stream was."""

    def __init__(self, events: AsyncIterator[bytes], service: Service, answering: Answering) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._service = service
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answering.close()
            self._service.count(self._answering)
