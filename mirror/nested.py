"""Reads, writes and changes JSON that is nested deeper than Python's stack allows."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

MOST_LEVELS = 950
"""Documents and lines with at most this many levels are mirrored; deeper ones are not."""

_WRITER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

TOO_DEEP = f"nested deeper than {MOST_LEVELS} levels"


def parse(text: str) -> Any:
    """Parse JSON text, including bare NaN and control characters in strings. Raises ValueError if it is not JSON."""
    try:
        return json.loads(text, strict=False)
    except RecursionError:
        return _with_a_fresh_stack(lambda: json.loads(text, strict=False))


def _with_a_fresh_stack(work: Callable[[], Any]) -> Any:
    """Return the result of `work`, run in a new thread, whose stack has room for MOST_LEVELS."""
    found: list[Any] = []
    problems: list[Exception] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:  # noqa: BLE001
            problems.append(error)

    thread = threading.Thread(target=run, name="deep JSON")
    thread.start()
    thread.join()
    if not problems:
        return found[0]
    try:
        raise problems[0]
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error


def check_levels(text: str | bytes, value: Any) -> None:
    """Raise ValueError if `value`, parsed from `text`, has more than MOST_LEVELS levels."""
    if len(text) <= 2 * MOST_LEVELS:
        return
    opening = text.count("{") + text.count("[") if isinstance(text, str) else text.count(b"{") + text.count(b"[")
    if opening <= MOST_LEVELS:
        return
    level: list[dict[Any, Any] | list[Any]] = [[value]]
    for _ in range(MOST_LEVELS + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError(TOO_DEEP)


def text_of(value: Any) -> str:
    """Compact JSON text, with bare NaN and Infinity, integers of any size, and unescaped characters."""
    try:
        return _WRITER.encode(value)
    except RecursionError:
        return _iteratively(value)


class _Token(str):
    """Finished JSON text, written unchanged."""

    __slots__ = ()


def _iteratively(value: Any) -> str:
    out: list[str] = []
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, _Token):
            out.append(item)
        elif isinstance(item, dict):
            out.append("{")
            pending.append(_Token("}"))
            for position, (key, entry) in reversed(list(enumerate(item.items()))):
                pending += [entry, _Token(f"{',' if position else ''}{json.dumps(key, ensure_ascii=False)}:")]
        elif isinstance(item, list | tuple):
            out.append("[")
            pending.append(_Token("]"))
            for position, entry in reversed(list(enumerate(item))):
                pending += [entry, _Token("," if position else "")]
        else:
            out.append(json.dumps(item, ensure_ascii=False))
    return "".join(out)


def mapped(value: Any, change: Callable[[str], Any], *, keys: bool = False) -> Any:
    """The value with `change` applied to every string in it and, with `keys`, to the keys of its objects."""
    root = [value]
    pending: list[tuple[Any, Any]] = [(root, 0)]
    while pending:
        holder, index = pending.pop()
        entry = holder[index]
        if isinstance(entry, str):
            holder[index] = change(entry)
        elif isinstance(entry, dict):
            holder[index] = {change(key) if keys else key: inner for key, inner in entry.items()}
            pending += [(holder[index], key) for key in holder[index]]
        elif isinstance(entry, list):
            holder[index] = list(entry)
            pending += [(holder[index], position) for position in range(len(entry))]
    return root[0]
