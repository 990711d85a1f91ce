"""What the server answers, in OpenAI's shapes."""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi.responses import JSONResponse

from burnish.errors import BurnishError, RefusedError
from burnish.model.detokenizer import TokenText
from burnish.server.answer_pieces import Piece

KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
Kind = Literal["chat", "text"]
DONE = b"data: [DONE]\n\n"


def error_body(message: str, status: int, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def body_of(error: BurnishError) -> tuple[int, dict[str, Any]]:
    """(HTTP status, body). A model that cannot do what was asked is the request's mistake here: 400."""
    status = 400 if error.http_status == 422 else error.http_status
    if isinstance(error, RefusedError):
        return status, error_body(str(error), status, error.code, error.param)
    return status, error_body(str(error), status)


def error_reply(error: BurnishError) -> JSONResponse:
    status, body = body_of(error)
    wait = error.retry_after if isinstance(error, RefusedError) else None
    return JSONResponse(body, status, {"Retry-After": str(wait)} if wait else None)


def event(value: dict[str, Any]) -> bytes:
    """A server-sent event, in ASCII: readers differ in what they take for the end of a line."""
    return f"data: {json.dumps(value)}\n\n".encode()


@dataclass(frozen=True)
class Answer:
    """The envelope of one answer, whole or in chunks."""

    kind: Kind
    model: str  # the expression, as it was asked for
    prompt_tokens: int
    logprobs: bool
    fingerprint: str
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def complete(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        text = "".join(piece.text for piece in pieces)
        tokens = [token for piece in pieces for token in piece.tokens]
        content = {"message": {"role": "assistant", "content": text, "refusal": None}} if self._chat else {"text": text}
        choice = self._choice(content, tokens, 0, pieces[-1].finished)
        return self._envelope([choice], chunk=False) | {"usage": self.usage(pieces[-1].made)}

    def opening(self) -> list[dict[str, Any]]:
        """The chunk before the first text, where there is one."""
        content = {"delta": {"role": "assistant", "content": "", "refusal": None}}
        return [self._envelope([self._choice(content, [], 0, "")])] if self._chat else []

    def chunks(self, piece: Piece, offset: int) -> list[dict[str, Any]]:
        """A piece as chunks: its text, and the end of an answer on its own. offset: characters before it."""
        chunks = []
        if piece.text or piece.tokens:
            content = {"delta": {"content": piece.text}} if self._chat else {"text": piece.text}
            chunks.append(self._envelope([self._choice(content, piece.tokens, offset, "")]))
        if piece.finished:
            end: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
            chunks.append(self._envelope([self._choice(end, [], offset, piece.finished)]))
        return chunks

    def closing(self, made: int) -> dict[str, Any]:
        """The chunk that only holds the usage."""
        return self._envelope([]) | {"usage": self.usage(made)}

    def usage(self, made: int) -> dict[str, int]:
        """The token that ends an answer is not counted: it is no part of the text."""
        prompt = self.prompt_tokens
        return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}

    @property
    def _chat(self) -> bool:
        return self.kind == "chat"

    def _envelope(self, choices: list[dict[str, Any]], *, chunk: bool = True) -> dict[str, Any]:
        kind = f"chat.completion{'.chunk' if chunk else ''}" if self._chat else "text_completion"
        return {
            "id": f"{'chatcmpl' if self._chat else 'cmpl'}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }

    def _choice(
        self, content: dict[str, Any], tokens: Sequence[TokenText], offset: int, finished: str
    ) -> dict[str, Any]:
        logprobs: dict[str, Any] | None = None
        if self.logprobs and tokens:
            logprobs = _chat_logprobs(tokens) if self._chat else _text_logprobs(tokens, offset)
        return {"index": 0, **content, "logprobs": logprobs, "finish_reason": finished or None}


def _chat_logprobs(tokens: Sequence[TokenText]) -> dict[str, Any]:
    rows = [
        {"token": t.text, "logprob": t.log_probability, "bytes": list(t.text.encode()), "top_logprobs": []}
        for t in tokens
    ]
    return {"content": rows, "refusal": None}


def _text_logprobs(tokens: Sequence[TokenText], offset: int) -> dict[str, Any]:
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [t.text for t in tokens],
        "token_logprobs": [t.log_probability for t in tokens],
        "top_logprobs": None,
        "text_offset": offsets,
    }
