"""History and system metrics as the lines that the server would hand out."""

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
    seconds_of,
    seen,
)
from mirror.local.values import LONG, Unreadable, shown
from mirror.local.values import value as value_of

_STEP = b'"_step":'
NO_VALUE = b"{}"
"""An object without members has no leaf, so the client sends none of it."""


_names: dict[bytes, bytes] = {}
_typed: set[bytes] = set()
_MOST_NAMES = 100_000


def _name(raw: bytes) -> bytes:
    """A key, dotted where it is nested, as the start of a member of a JSON object."""
    place = path(raw)
    name = orjson.dumps(".".join(place)) + b":"
    if len(_names) >= _MOST_NAMES:
        _names.clear()
        _typed.clear()
    _names[raw] = name
    if len(place) > 1 and place[-1] == "_type":
        _typed.add(name)
    return name


def history(reading: Reading, body: bytes, lines: Lines, shift: int | None, *, older: bool) -> int:
    """A history record as one line. Nested keys are dotted, but for objects with a `_type`, which stay whole."""
    known = _names
    found = items(body)
    if len(body) > LONG:
        found = _sound(found, lines)
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
        seen(reading, floating(time))
    # Sorted, since the client writes them in any order, and lines with the same order are parsed faster.
    text = b",".join([name + members[name] for name in sorted(members)])
    lines.history.append((b"{" + text + b"}").decode("utf-8", "replace"))
    if lines.sent is not None and step > lines.behind:
        line = _json({**_tree(found), "_step": str(step).encode()})
        lines.sent.append((step, line.decode("utf-8", "replace")))
    return shift


def _sound(found: dict[bytes, bytes], lines: Lines) -> dict[bytes, bytes]:
    """The items of a line but for long ones that no reader takes."""
    for raw, text in [(raw, text) for raw, text in found.items() if len(text) > LONG]:
        try:
            value_of(text)
        except Unreadable as error:
            if path(raw) == ("_step",):
                raise Unreadable(f"history step {shown(text)}: it is no number of a step") from error
            lines.errors.append(f"history {shown('.'.join(path(raw)))}: {error}")
            del found[raw]
    return found


def _shift(reading: Reading, step: int, lines: Lines) -> int:
    """What is added to the steps of a file whose first one this is. Raises BeginsAgain.

    A start that does not say whether it goes on, as none did before 0.31, is judged by its steps.
    """
    last = reading.last_step
    if last is None or reading.start == "first":
        return 0
    if step > last:
        if reading.start == "unknown":
            lines.notes.append(f"it is taken to go on with the run's earlier start, since its steps do, from {step:,}")
        return 0
    if reading.start == "resume":
        reading.moved = True
        return last + 1 - step
    if step == 0:
        raise BeginsAgain
    reading.cut = reading.last_step = step - 1
    lines.notes.append(
        f"it is taken to go on from step {step:,} of the run's earlier start, whose later steps are dropped"
    )
    return 0


def _step(body: bytes, text: bytes | None) -> int | None:
    """The step that a record names as a value or by itself. None for a process of a run that several write to.

    Raises Unreadable for a value that is no step.
    """
    if text is not None:
        try:
            step = int(text) if text.isdigit() else int(float(text))
        except (ValueError, OverflowError):
            step = -1
        if not 0 <= step < STEPS:
            raise Unreadable(f"history step {shown(text)}: it is no number of a step")
        return step
    for number, content in protobuf.fields(body):
        if number == 2 and isinstance(content, bytes):
            return next((protobuf.signed(num) for field, num in protobuf.fields(content) if isinstance(num, int)), 0)
    return None


def _with_objects(found: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The members of a line in which some objects stay whole."""
    return dict(_members(_tree(found), ""))


def _tree(found: dict[bytes, bytes]) -> dict[str, Any]:
    """The items of a line, each in the objects that its key names."""
    tree: dict[str, Any] = {}
    for raw, text in found.items():
        if text == NO_VALUE:
            continue
        place = tree
        *above, last = path(raw)
        for name in above:
            inner = place.get(name)
            if not isinstance(inner, dict):
                inner = place[name] = {}
            place = inner
        place[last] = text
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
    """System metrics as the line that the server is sent."""
    time = next((value for number, value in protobuf.fields(body) if number == 2 and isinstance(value, bytes)), b"")
    members = {b'"system.' + orjson.dumps(path(raw)[-1])[1:] + b":": text for raw, text in items(body, 3).items()}
    seconds, nanos = seconds_of(time)
    began = moment(reading.first_started_at)
    at = seconds + nanos / 1e9
    seen(reading, at)
    members[b'"_timestamp":'] = repr(at).encode()
    if began is not None and abs(at) < LATEST:
        runtime = (datetime(1970, 1, 1) + timedelta(seconds=at) - began).total_seconds()
        members[b'"_runtime":'] = repr(runtime).encode()
    members[b'"_wandb":'] = b"true"
    text = b",".join([name + members[name] for name in sorted(members)])
    lines.events.append((b"{" + text + b"}").decode("utf-8", "replace"))
