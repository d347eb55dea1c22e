"""Converts history and system metrics to the lines that the server would return."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import orjson

from mirror.local import protobuf
from mirror.local.protobuf_items import items, path
from mirror.local.reading import (
    LATEST,
    STEPS,
    BeginsAgain,
    Lines,
    OutOfOrder,
    Reading,
    floating,
    moment,
    note_time,
    seconds_of,
)
from mirror.local.values import LONG, Unreadable, shown
from mirror.local.values import value as value_of
from mirror.metrics import STEP

_STEP = f'"{STEP}":'.encode()
NO_VALUE = b"{}"
"""An empty object has no leaves, so the client sends nothing of it."""


_names: dict[bytes, bytes] = {}
_typed: set[bytes] = set()
_MOST_NAMES = 100_000


def _name(raw: bytes) -> bytes:
    """Return a key, dotted if it is nested, as the start of a member of a JSON object."""
    names = path(raw)
    name = orjson.dumps(".".join(names)) + b":"
    if len(_names) >= _MOST_NAMES:
        _names.clear()
        _typed.clear()
    _names[raw] = name
    if len(names) > 1 and names[-1] == "_type":
        _typed.add(name)
    return name


def history(reading: Reading, body: bytes, lines: Lines, shift: int | None, *, older: bool) -> int:
    """Add a history record as a line. Returns the shift. Keys are dotted, but objects with a `_type` stay whole."""
    known = _names
    found = items(body)
    if len(body) > LONG:
        found = _readable(found, lines)
    members = {known.get(raw) or _name(raw): text for raw, text in found.items() if text != NO_VALUE}
    if not _typed.isdisjoint(members):
        members = _with_objects(found)
    own = _step(body, members.get(_STEP))
    if own is None:
        step = 0 if reading.last_step is None else reading.last_step + 1
        shift = shift or 0
    else:
        if older:
            raise OutOfOrder
        if shift is None:
            shift = _shift(reading, own, lines)
        step = own + shift
    if step >= STEPS:
        raise Unreadable(f"history step {shown(str(step))}: it is past 64 bits")
    reading.latest.update(found)
    members[_STEP] = str(step).encode()
    reading.last_step = step if reading.last_step is None else max(step, reading.last_step)
    if time := members.get(b'"_timestamp":'):
        note_time(reading, floating(time))
    # Sorted, since the client writes them in any order, and lines with the same order are parsed faster.
    text = b",".join([name + members[name] for name in sorted(members)])
    lines.history.append((b"{" + text + b"}").decode("utf-8", "replace"))
    if lines.sent is not None and step > lines.behind:
        line = _json({**_tree(found), STEP: str(step).encode()})
        lines.sent.append((step, line.decode("utf-8", "replace")))
    return shift


def _readable(found: dict[bytes, bytes], lines: Lines) -> dict[bytes, bytes]:
    """Return the items of a line without long ones that cannot be read."""
    for raw, text in [(raw, text) for raw, text in found.items() if len(text) > LONG]:
        try:
            value_of(text)
        except Unreadable as error:
            if path(raw) == (STEP,):
                raise Unreadable(f"history step {shown(text)}: it is not a step number") from error
            lines.errors.append(f"history {shown('.'.join(path(raw)))}: {error}")
            del found[raw]
    return found


def _shift(reading: Reading, step: int, lines: Lines) -> int:
    """Return what to add to the steps of a file, given its first step. Raises BeginsAgain.

    A start that does not say whether it resumes, as none did before 0.31, is judged by its steps.
    """
    last = reading.last_step
    if last is None or reading.start == "first":
        return 0
    if step > last:
        if reading.start == "unknown":
            lines.notes.append(f"it continues the run's earlier start, since its steps do, from {step:,}")
        return 0
    if reading.start == "resume":
        reading.moved = True
        return last + 1 - step
    if step == 0:
        raise BeginsAgain
    reading.cut = reading.last_step = step - 1
    lines.notes.append(f"it continues the run's earlier start from step {step:,}; that start's later steps are dropped")
    return 0


def _step(body: bytes, text: bytes | None) -> int | None:
    """Return a record's step, from its `_step` value or its own field. None in a run that several processes write.

    Raises Unreadable for a value that is not a step.
    """
    if text is not None:
        try:
            step = int(text) if text.isdigit() else int(float(text))
        except (ValueError, OverflowError):
            step = -1
        if not 0 <= step < STEPS:
            raise Unreadable(f"history step {shown(text)}: it is not a step number")
        return step
    for number, content in protobuf.fields(body):
        if number == 2 and isinstance(content, bytes):
            return next((protobuf.signed(num) for field, num in protobuf.fields(content) if isinstance(num, int)), 0)
    return None


def _with_objects(found: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the members of a line in which some objects stay whole."""
    return dict(_members(_tree(found), ""))


def _tree(found: dict[bytes, bytes]) -> dict[str, Any]:
    """Return the items of a line as a nested dictionary."""
    tree: dict[str, Any] = {}
    for raw, text in found.items():
        if text == NO_VALUE:
            continue
        parent = tree
        *above, last = path(raw)
        for name in above:
            inner = parent.get(name)
            if not isinstance(inner, dict):
                inner = parent[name] = {}
            parent = inner
        parent[last] = text
    return tree


def _members(tree: dict[str, Any], prefix: str) -> list[tuple[bytes, bytes]]:
    members = []
    for name, value in tree.items():
        if isinstance(value, dict) and "_type" not in value:
            members += _members(value, f"{prefix}{name}.")
        else:
            members.append((orjson.dumps(f"{prefix}{name}") + b":", _json(value)))
    return members


def _json(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return b"{" + b",".join(orjson.dumps(name) + b":" + _json(entry) for name, entry in value.items()) + b"}"


def stats(reading: Reading, body: bytes, lines: Lines) -> None:
    """Add a record of system metrics to `lines`, as the line that the client sends to the server."""
    time = next((value for number, value in protobuf.fields(body) if number == 2 and isinstance(value, bytes)), b"")
    members = {b'"system.' + orjson.dumps(path(raw)[-1])[1:] + b":": text for raw, text in items(body, 3).items()}
    seconds, nanos = seconds_of(time)
    first_started = moment(reading.first_started_at)
    at = seconds + nanos / 1e9
    note_time(reading, at)
    members[b'"_timestamp":'] = repr(at).encode()
    if first_started is not None and abs(at) < LATEST:
        runtime = (datetime(1970, 1, 1) + timedelta(seconds=at) - first_started).total_seconds()
        members[b'"_runtime":'] = repr(runtime).encode()
    members[b'"_wandb":'] = b"true"
    text = b",".join([name + members[name] for name in sorted(members)])
    lines.events.append((b"{" + text + b"}").decode("utf-8", "replace"))
