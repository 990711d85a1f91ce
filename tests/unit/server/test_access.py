"""Who may ask: hosts, origins, sizes."""

import asyncio
from typing import Any

import pytest
from starlette.datastructures import Headers

from burnish.errors import RefusedError
from burnish.server.access import SPARE, Access, _body, host_of, loopback


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:8711", "localhost"),
        ("LOCALHOST", "localhost"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:8711", "::1"),
        ("evil.com", "evil.com"),
        ("localhost.evil.com:8711", "localhost.evil.com"),
        ("evil.com/localhost", "evil.com"),
        ("localhost@evil.com", "evil.com"),
        ("[::1", ""),
        ("", ""),
    ],
)
def test_the_name_of_a_host_header_is_without_port(header: str, name: str) -> None:
    assert host_of(header) == name


def test_loopback_hears_this_computer_alone() -> None:
    assert all(map(loopback, ("127.0.0.1", "127.8.8.8", "::1")))
    assert not loopback("0.0.0.0")


def status(access: Access, **headers: str) -> int:
    try:
        access.check(Headers(headers))
    except RefusedError as error:
        return error.http_status
    return 200


def test_own_names_are_answered_on_loopback_and_any_where_keys_protect() -> None:
    for host in ("localhost", "localhost:8711", "127.0.0.1:8711", "[::1]:8711"):
        assert status(Access(), host=host) == 200
    for host in ("evil.com", "localhost.evil.com", "", "8.8.8.8:8711", "localhost@evil.com"):
        assert status(Access(), host=host) == 400
    assert status(Access("0.0.0.0", keys=True), host="burnish.example:8711") == 200


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://localhost:8711", 200),
        ("https://localhost:8711", 200),
        ("http://localhost:9999", 403),
        ("http://evil.com", 403),
        ("null", 403),
        ("", 403),
        ("http://[::1", 403),
    ],
)
def test_other_sites_are_refused(origin: str, expected: int) -> None:
    assert status(Access(), host="localhost:8711", origin=origin) == expected


def read(parts: list[bytes], limit: int, length: int | None = None) -> tuple[bytes | None, int]:
    """(body, messages read)."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": n < len(parts)} for n, part in enumerate(parts, 1)
    ]
    count = 0

    async def receive() -> dict[str, Any]:
        nonlocal count
        count += 1
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    headers = Headers({} if length is None else {"content-length": str(length)})
    try:
        return asyncio.run(_body(headers, receive, limit)), count
    except RefusedError as error:
        assert error.http_status == 413
        return b"refused", count


def test_a_body_within_the_limit_is_whole() -> None:
    assert read([b"ab", b"c", b""], 3) == (b"abc", 3)
    assert read([b""], 3) == (b"", 1)


def test_a_body_is_counted_while_it_is_read_whatever_it_says_of_itself() -> None:
    assert read([b"abcd"], 3)[0] == b"refused"
    assert read([b"ab", b"cd"], 3, length=2)[0] == b"refused"
    assert read([b"ab"], 3, length=4)[0] == b"refused"


def test_an_endless_body_is_not_read_to_its_end() -> None:
    reply, count = read([b"abc"] * 1000, 3)
    assert reply == b"refused"
    assert count <= SPARE + 2


def test_a_sender_who_leaves_has_no_body() -> None:
    messages = iter([{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(messages)

    assert asyncio.run(_body(Headers({}), receive, 10)) is None
