"""What crosses from the engine's thread to a request: the tokens of one answer, and steps of other work."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from burnish.errors import BurnishError, RefusedError
from burnish.model.decoding import DecodedToken, DecodeRequest
from burnish.steps import Steps


def too_slow(seconds: float) -> RefusedError:
    return RefusedError(
        f"The request took longer than the {seconds:g} seconds allowed. Ask for fewer tokens, or try when fewer people wait.",
        status=504,
        code="time_limit",
    )


def stopping() -> RefusedError:
    return RefusedError(
        "The server is shutting down. Try again in a moment.", status=503, code="shutting_down", retry_after=5
    )


def unexpected() -> RefusedError:
    return RefusedError(
        "Something unexpected went wrong on the server; its log says where. Try again.",
        status=500,
        code="internal_error",
    )


class Answering:
    """The tokens of one request as they come. An asynchronous iterator for one reader, on the event loop.

    It ends behind the token whose `finished` says so, and raises what ended the request otherwise: the request's own error, RefusedError
    for the time limit (504) and for the end of the server (503). `close` frees the row of a reader who leaves earlier.
    """

    def __init__(
        self, person: str, request: DecodeRequest, seconds: float, leave: Callable[["Answering"], None]
    ) -> None:
        self.person = person
        self.request = request
        self.seconds = seconds
        self._leave = leave
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._arrived: deque[DecodedToken | BurnishError] = deque()
        self._news = asyncio.Event()
        self._over = False
        self._started = time.monotonic()
        self.first: float | None = None  # seconds to the first token
        self.made = 0  # tokens that came, the one that ends the answer included

    def arrive(self, item: DecodedToken | BurnishError) -> None:
        """Called on the event loop."""
        if isinstance(item, DecodedToken) and item.error is None:
            self.made += 1
            self.first = time.monotonic() - self._started if self.first is None else self.first
        self._arrived.append(item)
        self._news.set()

    def __aiter__(self) -> "Answering":
        return self

    async def __anext__(self) -> DecodedToken:
        if self._over:
            raise StopAsyncIteration
        while not self._arrived:
            self._news.clear()
            try:
                async with asyncio.timeout_at(self._deadline):
                    await self._news.wait()
            except TimeoutError:
                self.close()
                raise too_slow(self.seconds) from None
        item = self._arrived.popleft()
        error = item if isinstance(item, BurnishError) else item.error
        if error is not None:
            self._over = True
            raise error
        assert isinstance(item, DecodedToken)
        self._over = bool(item.finished)
        return item

    def close(self) -> None:
        """Ends the request; may be repeated."""
        if not self._over:
            self._over = True
            self._leave(self)


@dataclass(eq=False)
class Job:
    """Work other than decoding that needs the model."""

    steps: Steps[Any]
    future: Future[Any] = field(default_factory=Future)

    def settle(self, result: Any = None, error: BaseException | None = None) -> None:
        """Hands over what came out, unless nobody waits any more."""
        if not self.future.set_running_or_notify_cancel():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)
