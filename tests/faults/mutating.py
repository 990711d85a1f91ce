"""Seeded damage to files: bytes, lengths, and the JSON of headers."""

import json
import random
import struct
from typing import Any

NUMBERS = (0, 1, -1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64, 10**30, 0.5, -0.0, float("nan"), float("inf"))
WORDS = (
    "",
    "F32",
    "F16",
    "I64",
    "BOOL",
    "F8_E4M3",
    "F4",
    "f32",
    "Q4",
    "\0",
    "../x",
    "\ud800",
    "ü" * 300,
    "__metadata__",
)
EDGES = (
    bytes(8),
    b"\xff" * 8,
    struct.pack("<Q", 2**62),
    struct.pack("<Q", 2**32),
    struct.pack("<q", -1),
    b"\x01" + bytes(7),
)


def damaged(data: bytes, chance: random.Random, *, header: int) -> bytes:
    """Bytes changed, cut out, put in or cut off: mostly in the first `header` bytes."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        place = chance.randrange(header if chance.random() < 0.8 else len(data)) % max(1, len(changed))
        match chance.randrange(6):
            case 0:
                changed[place : place + 1] = bytes([changed[place] ^ 1 << chance.randrange(8)]) if changed else b"x"
            case 1:
                changed[place : place + 1] = bytes([chance.randrange(256)])
            case 2:
                changed[place : place + 8] = chance.choice(EDGES)
            case 3:
                del changed[place : place + chance.choice((1, 2, 8, 100))]
            case 4:
                changed[place:place] = chance.choice(
                    (b"[" * 5000, b'{"":' * 5000, b"\0", bytes(100), b"9" * 5000, b'"')
                )
            case _:
                del changed[place:]
    return bytes(changed)


def with_header(data: bytes, chance: random.Random) -> bytes:
    """A safetensors file whose JSON is still JSON but says other things; its length agrees."""
    length = int.from_bytes(data[:8], "little")
    header = changed(json.loads(data[8 : 8 + length]), chance)
    text = json.dumps(header).encode()
    if chance.random() < 0.1 and isinstance(header, dict) and header:
        name = chance.choice(list(header))
        text = text[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}".encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def changed(value: Any, chance: random.Random) -> Any:
    """One place of a JSON value is another; strings that hold JSON are looked into."""
    if isinstance(value, str) and value.startswith("{") and chance.random() < 0.9:
        return json.dumps(changed(json.loads(value), chance))
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        other = {**value, key: changed(value[key], chance)}
        match chance.randrange(8):
            case 0:
                del other[key]
            case 1:
                other[chance.choice(WORDS)] = other.pop(key)
            case 2:
                other[chance.choice(WORDS)] = value[chance.choice(list(value))]
        return other
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        match chance.randrange(6):
            case 0:
                return value[:place]
            case 1:
                return [*value, *value]
            case 2:
                return value[::-1]
        return [*value[:place], changed(value[place], chance), *value[place + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.5:
        return value + chance.choice((-8, -4, -1, 1, 4, 8, 64))
    return chance.choice((chance.choice(NUMBERS), chance.choice(WORDS), None, True, [], {}, [value], {"a": value}))
