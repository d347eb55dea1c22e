"""Writes the part of Protobuf's wire format that the records of a `.wandb` file need; `protobuf` reads it."""

from __future__ import annotations

from datetime import datetime, timedelta

_EPOCH = datetime(1970, 1, 1)
_VARINT, _BYTES = 0, 2


def varint(value: int) -> bytes:
    """Return an integer of up to 64 bits; a negative one in two's complement."""
    if 0 <= value < 0x80:
        return bytes((value,))
    value &= 2**64 - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(number: int, value: int) -> bytes:
    """Return an integer or boolean field; empty for zero, which is the default."""
    return varint(number << 3 | _VARINT) + varint(value) if value else b""


def field(number: int, content: bytes) -> bytes:
    """Return a field of bytes, such as a nested message."""
    return varint(number << 3 | _BYTES) + varint(len(content)) + content


def text(number: int, value: str | None) -> bytes:
    """Return a text field; empty for an empty text. Half of a surrogate pair becomes a question mark."""
    return field(number, value.encode("utf-8", "replace")) if value else b""


def timestamp(number: int, at: datetime) -> bytes:
    """Return a field with a naive UTC time, as a google.protobuf.Timestamp."""
    seconds, rest = divmod(at - _EPOCH, timedelta(seconds=1))
    return field(number, integer(1, seconds) + integer(2, rest.microseconds * 1000))
