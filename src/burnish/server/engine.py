"""One thread owns the model: it decodes all requests together and runs other work (damage, fits, features) in between."""

import asyncio
import logging
import threading
import time
import traceback
from collections import deque
from typing import TypeVar

from burnish.errors import BurnishError
from burnish.model.decoding import DecodedToken, Decoder, DecodeRequest
from burnish.model.model import Model
from burnish.server.fair_queue import FairQueue
from burnish.server.pending import Answering, Job, stopping, too_slow, unexpected
from burnish.steps import Steps

log = logging.getLogger("burnish.server")
T = TypeVar("T")


class Engine:
    """Requests and jobs come from the event loop on which `start` was called; the model is used by the engine's thread alone.

    Between two steps of the decoder at most one piece of a job is run, and after a piece that took t seconds the decoder has t
    seconds of its own: other work halves the speed of answers and never stops them for longer than its longest piece.
    """

    def __init__(self, model: Model, *, rows: int = 8, waiting: int = 64, seconds: float = 600.0) -> None:
        """waiting: requests, and jobs, that may wait; seconds: how long one may take."""
        self.model = model
        self.seconds = seconds
        self.restarts = 0  # unexpected errors while decoding
        self._rows = rows
        self._changed = threading.Condition()
        self._queue: FairQueue[Answering] = FairQueue(waiting)
        self._jobs: FairQueue[Job] = FairQueue(waiting)
        self._left: deque[Answering] = deque()  # readers who are gone
        self._open = self._alive = False
        self._running: dict[int, Answering] = {}  # by the decoder's number
        self._decoder = Decoder(model, rows=rows)
        self._job: Job | None = None
        self._owed = 0.0  # seconds of decoding before the next piece of a job
        self._thread = threading.Thread(target=self._work, name="burnish-engine", daemon=True)

    def start(self) -> None:
        """Called once, on the event loop that requests come from."""
        self._loop = asyncio.get_running_loop()
        self._open = self._alive = True
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether new requests are taken."""
        return self._open

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Whether nothing is decoded, waits or is worked on."""
        with self._changed:
            return not self._busy()

    def submit(self, person: str, request: DecodeRequest) -> Answering:
        """Raises RefusedError when the queue is full (429) or the server stops (503); other errors come from the iterator."""
        answering = Answering(person, request, self.seconds, self._leave)
        with self._changed:
            self._require_open()
            self._queue.put(person, answering)
            self._changed.notify()
        return answering

    async def run(self, person: str, steps: Steps[T]) -> T:
        """The result of work that uses the model. Raises what the work raises, and RefusedError as `submit` or after the time limit (504)."""
        job = Job(steps)
        with self._changed:
            self._require_open()
            self._jobs.put(person, job)
            self._changed.notify()
        try:
            async with asyncio.timeout(self.seconds):
                result: T = await asyncio.wrap_future(job.future)
                return result
        except TimeoutError:
            raise too_slow(self.seconds) from None

    def refuse_new(self) -> None:
        """From now on requests are refused; those that are known go on."""
        with self._changed:
            self._open = False

    async def finish(self, grace: float) -> None:
        """Refuses new requests, lets the others finish for at most `grace` seconds, then ends them (503) and the thread."""
        self.refuse_new()
        until = time.monotonic() + grace
        while not self.idle and time.monotonic() < until:
            await asyncio.sleep(0.02)
        with self._changed:
            self._alive = False
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _require_open(self) -> None:
        if not self._open:
            raise stopping()

    def _leave(self, answering: Answering) -> None:
        with self._changed:
            if not self._queue.remove(answering.person, answering):
                self._left.append(answering)
                self._changed.notify()

    def _busy(self) -> bool:
        known = len(self._queue) or len(self._jobs) or self._job or self._running or self._left
        return bool(known) or not self._decoder.idle

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._alive and not self._busy():
                    self._changed.wait()
                if not self._alive:
                    break
            self._forget()
            self._admit()
            self._piece()
            self._step()
        self._end(stopping())
        while answering := self._queue.take():
            self._say([(answering, stopping())])
        job, self._job = self._job, None
        while job := job or self._jobs.take():
            job.settle(error=stopping())
            job = None
        self._left.clear()

    def _forget(self) -> None:
        """Frees the rows of readers who are gone."""
        with self._changed:
            gone = set(self._left)
            self._left.clear()
        for number in [n for n, answering in self._running.items() if answering in gone]:
            self._decoder.cancel(number)
            del self._running[number]

    def _admit(self) -> None:
        """Hands as many requests to the decoder as it has free rows: who is next is decided here, not in its queue."""
        while len(self._running) < self._decoder.rows:
            with self._changed:  # to the end: a request that is in neither place would look like none
                answering = self._queue.take()
                if answering is None:
                    return
                try:
                    self._running[self._decoder.submit(answering.request)] = answering
                except BurnishError as error:
                    self._say([(answering, error)])
                except Exception as error:  # noqa: BLE001  one request must not end the others, whatever is wrong with it
                    self._report("a request could not be started", error)
                    self._say([(answering, unexpected())])

    def _step(self) -> None:
        if self._decoder.idle:
            self._owed = 0.0
            return
        started = time.perf_counter()
        try:
            tokens = self._decoder.step()
        except Exception as error:  # noqa: BLE001  what is left of the decoder is unknown: a new one serves the next requests
            self._report("decoding failed; running requests are ended", error)
            self.restarts += 1
            self._end(unexpected())
            return
        self._owed -= time.perf_counter() - started
        # Whom a token belongs to is looked up before those that end are forgotten.
        self._say([(self._running[token.request], token) for token in tokens if token.request in self._running])
        for token in tokens:
            if token.finished:
                self._running.pop(token.request, None)

    def _piece(self) -> None:
        if self._owed > 0 and self._running:
            return
        if self._job is None:
            with self._changed:
                self._job = self._jobs.take()
        job = self._job
        if job is None:
            return
        if job.future.cancelled():
            job.steps.close()
            self._job = None
            return
        started = time.perf_counter()
        try:
            next(job.steps)
        except StopIteration as end:
            job.settle(end.value)
            self._job = None
        except BurnishError as error:
            job.settle(error=error)
            self._job = None
        except Exception as error:  # noqa: BLE001  a job that fails fails alone
            self._report("a job failed", error)
            job.settle(error=unexpected())
            self._job = None
        self._owed = time.perf_counter() - started

    def _end(self, error: BurnishError) -> None:
        """Ends all running requests and begins anew."""
        self._say([(answering, error) for answering in self._running.values()])
        self._running = {}
        self._decoder.close()
        self._decoder = Decoder(self.model, rows=self._rows)

    def _say(self, items: list[tuple[Answering, DecodedToken | BurnishError]]) -> None:
        def arrive() -> None:
            for answering, item in items:
                answering.arrive(item)

        if items:
            self._loop.call_soon_threadsafe(arrive)

    def _report(self, what: str, error: Exception) -> None:
        log.error("%s: %s\n%s", what, *described(error))


def described(error: BaseException) -> tuple[str, str]:
    """(kind, where) of an error for the log: not its message, which may quote a prompt."""
    return type(error).__name__, "".join(traceback.format_tb(error.__traceback__)).rstrip()
