"""Key and value pairs of a record: history, summary, config and stats items all have the same form.

Each item holds `key` (1) or `nested_key` (2, repeated), and `value_json` (16).
Source: wandb/proto/wandb_internal.proto in github:wandb/wandb (HistoryItem, SummaryItem, ConfigItem, StatsItem).
"""

from __future__ import annotations

from mirror.local.protobuf import Malformed, fields, varint

Path = tuple[str, ...]

_BYTES = 2
_NESTED_KEY_TAG = 0x12
_VALUE_TAG = b"\x82\x01"

_paths: dict[bytes, Path] = {}
_MOST_PATHS = 100_000


def items(body: bytes, wanted: int = 1, others: set[int] | None = None) -> dict[bytes, bytes]:
    """Return the items in field `wanted` of a record: JSON texts by the raw bytes of their key fields, for `path`.

    If a key occurs twice, the later item counts, also for the order. Tags of other fields are added to `others`.
    Raises Malformed or IndexError for bytes that are not a record.
    """
    found: dict[bytes, bytes] = {}
    pos, end, count = 0, len(body), 0
    tag = wanted << 3 | _BYTES
    while pos < end:
        if body[pos] != tag:
            if others is not None:
                others.add(body[pos])
            pos = _skip(body, pos)
            continue
        length = body[pos + 1]
        start = pos + 2
        if length >= 0x80:
            length, start = varint(body, pos + 1)
        pos = start + length
        count += 1
        # Nearly every item has one or more short keys, then one value; any other item is read field by field.
        if length > 2 and (size := body[start + 1]) < 0x80:
            at = start + 2 + size
            while at < pos and body[at] == _NESTED_KEY_TAG and (size := body[at + 1]) < 0x80:
                at += 2 + size
            if body[at : at + 2] == _VALUE_TAG:
                value, size = at + 3, body[at + 2]
                if size >= 0x80:
                    size, value = varint(body, at + 2)
                if value + size == pos:
                    found[body[start:at]] = body[value:pos]
                    continue
        keys, text = _by_fields(body[start:pos])
        found[keys] = text
    if pos != end:
        raise Malformed("an item is longer than its record")
    return found if len(found) == count else _in_order(body, tag)


def path(raw: bytes) -> Path:
    """Return the key path in the key fields of an item. Raises Malformed."""
    known = _paths.get(raw)
    if known is None:
        found = [(number, value) for number, value in fields(raw) if isinstance(value, bytes)]
        nested = [value for number, value in found if number == 2]
        names = nested or [value for number, value in found if number == 1][-1:]
        if not names:
            raise Malformed("an item without a key")
        known = tuple(name.decode("utf-8", "replace") for name in names)
        if len(_paths) >= _MOST_PATHS:
            _paths.clear()
        _paths[raw] = known
    return known


def _in_order(body: bytes, tag: int) -> dict[bytes, bytes]:
    """Return the items of a record in which a key occurs twice, each in the order of its last value.

    A different encoding of the same key may occur between the two.
    """
    found: dict[bytes, bytes] = {}
    for number, content in fields(body):
        if number == tag >> 3 and isinstance(content, bytes):
            keys, text = _by_fields(content)
            found.pop(keys, None)
            found[keys] = text
    return found


def _skip(body: bytes, pos: int) -> int:
    """Return the position after a field that is not an item."""
    tag, pos = varint(body, pos)
    kind = tag & 7
    if kind == 0:
        return varint(body, pos)[1]
    if kind == 2:
        length, pos = varint(body, pos)
        return pos + length
    if kind in (1, 5):
        return pos + (8 if kind == 1 else 4)
    raise Malformed(f"field kind {kind}")


def _by_fields(item: bytes) -> tuple[bytes, bytes]:
    keys, value = b"", b"null"
    for number, content in fields(item):
        if isinstance(content, bytes):
            if number in (1, 2):
                keys += bytes([number << 3 | 2]) + _length(len(content)) + content
            elif number == 16:
                value = content
    return keys, value


def _length(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
