"""Who may ask and how much: keys, hosts and origins, sizes, open requests a person; and what every reply carries."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from burnish.errors import BurnishError, InputError, RefusedError
from burnish.server.engine import described
from burnish.server.pending import stopping, too_slow, unexpected
from burnish.server.responses import error_reply
from burnish.server.service import Service

log = logging.getLogger("burnish.server")
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Any], Awaitable[None]]

OPEN = frozenset({"/", "/page.js", "/page.css", "/healthz", "/readyz"})  # without a key
ALWAYS = OPEN | {"/metrics"}  # answered while the server stops, and not counted as a person's
OWN = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
BODY_SECONDS = 30.0  # for the bytes of a request to come
SPARE = 8  # times the limit that is still read, so that the sender gets to read why it was refused


def loopback(host: str) -> bool:
    """Whether a server bound to this host hears this computer alone."""
    return host in OWN or host.startswith("127.")


def host_of(header: str) -> str:
    """The name in a Host header: lower case, without port and brackets; empty where there is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


@dataclass(frozen=True)
class Access:
    """What a server listens to."""

    host: str = "127.0.0.1"
    keys: bool = False  # whether requests need a person's key

    def check(self, headers: Headers) -> None:
        """Raises RefusedError for a foreign Host on loopback (400: DNS rebinding) and for a foreign Origin (403)."""
        host = headers.get("host", "")
        name = host_of(host)
        if loopback(self.host) and name not in OWN | {self.host}:
            raise RefusedError(
                f"This server answers to localhost, not to '{name[:100]}'. Use the address that it printed.",
                status=400,
                code="unknown_host",
            )
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host.lower():
            raise RefusedError(
                "Another site may not use this server from a browser. Open the server's own page.",
                status=403,
                code="cross_site",
            )


def _netloc(origin: str) -> str | None:
    """Host and port of an Origin; None for what is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


class Guard:
    """Around the whole app, as ASGI middleware."""

    def __init__(self, app: Any, service: Service, access: Access) -> None:
        self._app = app
        self._service = service
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # beginning and end; the app has no web sockets
            await self._app(scope, receive, send)
            return
        reply = _Reply(send)
        try:
            await self._answer(scope, receive, reply)
        except Exception as error:  # noqa: BLE001  the web server would log the message, which may quote a prompt
            if isinstance(error, BurnishError):
                refusal = self._service.public(error)
            else:
                log.error("a request failed: %s\n%s", *described(error))
                refusal = unexpected()
            if not reply.status:
                await error_reply(refusal)(scope, receive, reply)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._service.metrics.requests.labels(route, str(reply.status or "gone")).inc()

    async def _answer(self, scope: Scope, receive: Receive, reply: "_Reply") -> None:
        headers, path = Headers(scope=scope), scope["path"]
        self._access.check(headers)
        if path in ALWAYS and (path in OPEN or not self._access.keys):
            await self._app(scope, receive, reply)
            return
        person = await self._person(headers)
        if path in ALWAYS:
            await self._app(scope, receive, reply)
            return
        if not self._service.engine.ready:
            raise stopping()
        limits = self._service.options
        open_requests = self._service.open_requests
        if open_requests[person] >= limits.per_person:
            raise RefusedError(
                f"You have {limits.per_person} requests open, which is the limit. Wait for one to end.",
                status=429,
                code="too_many_requests",
                retry_after=1,
            )
        open_requests[person] += 1
        try:
            body = await _body(headers, receive, limits.body_limit)
            if body is None:
                return
            scope.setdefault("state", {})["person"] = person
            # A reader who takes nothing would hold a place for ever: past the time limit of the answer itself it is let go.
            async with asyncio.timeout(limits.time_limit + BODY_SECONDS):
                await self._app(scope, _replayed(body, receive), reply)
        except TimeoutError:
            raise too_slow(limits.time_limit) from None
        finally:
            open_requests[person] -= 1
            if not open_requests[person]:
                del open_requests[person]

    async def _person(self, headers: Headers) -> str:
        if not self._access.keys:
            return self._service.local
        scheme, _, key = headers.get("authorization", "").partition(" ")
        try:
            if scheme.lower() == "bearer" and key.strip():
                return await asyncio.to_thread(self._service.store.person_of, key.strip())
        except InputError:
            pass
        raise RefusedError(
            "This server needs a key that belongs to someone here. Send it as `Authorization: Bearer KEY`.",
            status=401,
            code="invalid_api_key",
        )


class _Reply:
    """Adds the headers that every reply has, and knows its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
            if self.status == 401:
                headers["WWW-Authenticate"] = "Bearer"
        await self._send(message)


async def _body(headers: Headers, receive: Receive, limit: int) -> bytes | None:
    """The whole body; None when the sender left. Raises RefusedError: 413 beyond the limit, 400 when it does not come."""
    length = headers.get("content-length", "")
    large = length.isdigit() and int(length) > limit
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while size <= SPARE * limit:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                size += len(message.get("body", b""))
                large = large or size > limit
                parts = [] if large else [*parts, message.get("body", b"")]
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise RefusedError(
            f"The request's body did not come within {BODY_SECONDS:g} seconds. Send it again.",
            status=400,
            code="body_timeout",
        ) from None
    if large:
        raise RefusedError(
            f"The request is larger than the {limit:,} bytes allowed. Send less text.",
            status=413,
            code="body_too_large",
        )
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body that was read, then what else comes: the end of the connection."""
    first = True

    async def replay() -> dict[str, Any]:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay
