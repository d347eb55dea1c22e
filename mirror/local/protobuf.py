"""The part of Protobuf's wire format that the records of a `.wandb` file need.

Hand-written instead of generated: only the mirrored fields are decoded, and a history line becomes JSON text without an
object for each of its values.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Malformed(ValueError):
    """The bytes are not a valid message."""


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message in order: number, and bytes or integer. Raises Malformed."""
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
                raise Malformed("a field is longer than its message")
            yield tag >> 3, message[pos : pos + length]
            pos += length
        else:
            raise Malformed(f"field kind {kind}")


def varint(message: bytes, pos: int) -> tuple[int, int]:
    """Return the integer at `pos`, and the position after it. Raises Malformed."""
    value = shift = 0
    while True:
        if pos >= len(message) or shift > 63:
            raise Malformed("an integer does not end")
        byte = message[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, pos
        shift += 7


def signed(value: int) -> int:
    """Return a 64-bit integer in two's complement as a signed one."""
    return value - 2**64 if value >= 2**63 else value


def double(value: bytes) -> float:
    """Return a field of 8 bytes as a float."""
    return float(struct.unpack("<d", value)[0])
