"""The engine: decoding and other work share one thread, fairly."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

from burnish.errors import InputError, RefusedError
from burnish.model.decoding import DecodedToken, Decoder, DecodeRequest
from burnish.model.model import Model
from burnish.model.row_edits import Candidate
from burnish.server.engine import Engine
from burnish.server.pending import Answering

BASE = Candidate("base")


def request(tokens: int = 6) -> DecodeRequest:
    return DecodeRequest([5, 6, 7], BASE, tokens)


def driven(engine: Engine, work: Callable[[], Awaitable[Any]]) -> Any:
    """What the work finds while the engine runs; the engine is idle and ended afterwards."""

    async def main() -> Any:
        engine.start()
        try:
            return await work()
        finally:
            await engine.finish(5)
            assert engine.idle
            assert not engine._thread.is_alive()

    return asyncio.run(main())


async def all_of(answering: Answering) -> list[DecodedToken]:
    return [token async for token in answering]


def endless(pieces: list[None]) -> Generator[None, None, None]:
    """A job that goes on for ever, and counts its pieces."""
    while True:
        pieces.append(None)
        time.sleep(0.005)
        yield


def test_people_take_turns_at_the_rows(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    submit = Decoder.submit
    requests = {"many": [request() for _ in range(6)], "one": [request()], "two": [request(), request()]}
    names = {id(r): person for person, rows in requests.items() for r in rows}
    monkeypatch.setattr(Decoder, "submit", lambda decoder, r: (order.append(names[id(r)]), submit(decoder, r))[1])
    engine = Engine(llama, rows=1)

    async def work() -> None:
        with engine._changed:  # the engine sees all of them at once
            answers = [engine.submit(person, r) for person, rows in requests.items() for r in rows]
        await asyncio.gather(*map(all_of, answers))

    driven(engine, work)
    assert order == ["many", "one", "two", "many", "two", "many", "many", "many", "many"]


def test_a_long_job_lets_answers_go_on_between_its_pieces(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, step = Engine(llama), Decoder.step
    steps: list[Decoder] = []
    monkeypatch.setattr(Decoder, "step", lambda decoder: (steps.append(decoder), step(decoder))[1])
    seen: list[int] = []

    def job() -> Generator[None, None, str]:
        for _ in range(5):
            seen.append(len(steps))
            time.sleep(0.02)
            yield
        return "done"

    async def work() -> str:
        result, tokens = await asyncio.gather(engine.run("b", job()), all_of(engine.submit("a", request(200))))
        assert len(tokens) == 200
        return result

    assert driven(engine, work) == "done"
    assert seen == sorted(set(seen))  # tokens were made between any two pieces


def test_a_job_that_nobody_waits_for_stops_between_its_pieces(llama: Model) -> None:
    engine = Engine(llama)
    pieces: list[None] = []

    async def work() -> None:
        task = asyncio.create_task(engine.run("a", endless(pieces)))
        while len(pieces) < 2:
            await asyncio.sleep(0.005)
        task.cancel()
        while not engine.idle:
            await asyncio.sleep(0.005)

    driven(engine, work)


def test_the_time_limit_ends_jobs_too(llama: Model) -> None:
    engine = Engine(llama, seconds=0.05)

    async def work() -> None:
        with pytest.raises(RefusedError) as refused:
            await engine.run("a", endless([]))
        assert refused.value.code == "time_limit"

    driven(engine, work)


def test_a_request_that_the_decoder_refuses_raises_from_its_iterator(llama: Model) -> None:
    engine = Engine(llama)

    async def work() -> None:
        with pytest.raises(InputError, match="exceed the model's context"):
            await all_of(engine.submit("a", request(10_000)))

    driven(engine, work)


def test_what_waits_when_the_engine_ends_is_refused(llama: Model) -> None:
    engine = Engine(llama, rows=1)
    begun, goes_on = threading.Event(), threading.Event()

    def job() -> Generator[None, None, None]:
        yield
        begun.set()
        goes_on.wait(30)
        yield

    async def work() -> None:
        running = asyncio.create_task(engine.run("a", job()))
        assert await asyncio.to_thread(begun.wait, 30)
        waiting = [engine.submit("a", request()) for _ in range(2)]
        ending = asyncio.create_task(engine.finish(0))
        await asyncio.sleep(0)  # it has begun to end
        goes_on.set()
        await ending
        for answering in waiting:
            with pytest.raises(RefusedError) as refused:
                await all_of(answering)
            assert refused.value.http_status == 503
        with pytest.raises(RefusedError):
            await running
        with pytest.raises(RefusedError):
            engine.submit("a", request())
        with pytest.raises(RefusedError):
            await engine.run("a", job())

    driven(engine, work)


def test_closing_an_answer_frees_its_row_or_its_place_in_the_queue(llama: Model) -> None:
    engine = Engine(llama, rows=1)

    async def work() -> None:
        first, second, third = (engine.submit("a", request(200)) for _ in range(3))
        await anext(first)
        second.close()
        assert engine.waiting == 1
        first.close()
        first.close()
        assert len(await all_of(third)) == 200
        with pytest.raises(StopAsyncIteration):
            await anext(second)

    driven(engine, work)
