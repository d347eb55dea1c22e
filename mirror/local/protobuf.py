"""Protobuf's wire format, as far as the records of a `.wandb` file need it.

Own code instead of generated one: only the fields that are mirrored are looked at, and a history line becomes JSON text
without an object for each of its values.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Malformed(ValueError):
    """Bytes that are no message."""


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Each field of a message in order: its number, and its bytes or its integer. Raises Malformed."""
    pos, end = 0, len(message)
    while pos < end:
        tag, pos = varint(message, pos)
        kind = tag & 7
        if kind == _VARINT:
            value, pos = varint(message, pos)
            yield tag >> 3, value
        elif kind in (_BYTES, _FIXED64, _FIXED32):
            length, pos = varint(message, pos) if kind == _BYTES else (8 if kind == _FIXED64 else 4, pos)
            if pos + length > end:
                raise Malformed("a field reaches over the end of its message")
            yield tag >> 3, message[pos : pos + length]
            pos += length
        else:
            raise Malformed(f"field kind {kind}")


def varint(message: bytes, pos: int) -> tuple[int, int]:
    """The integer at a place, and the place behind it. Raises Malformed."""
    value = shift = 0
    while True:
        if pos >= len(message) or shift > 63:
            raise Malformed("an integer without end")
        byte = message[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, pos
        shift += 7


def signed(value: int) -> int:
    """An integer of 64 bits in two's complement."""
    return value - 2**64 if value >= 2**63 else value


def double(value: bytes) -> float:
    """A field of 8 bytes as a number."""
    return float(struct.unpack("<d", value)[0])
