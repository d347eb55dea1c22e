"""JSON that is nested deeper than Python's stack: read, written and changed at any depth that the mirror keeps."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

MOST_LEVELS = 950
"""Documents and lines are mirrored down to here; one that is nested deeper is not."""

TOO_DEEP = f"nested deeper than {MOST_LEVELS} levels"


def parse(text: str) -> Any:
    """Parse JSON text, bare NaN and control characters in strings included. Raises ValueError for what is no JSON."""
    try:
        return json.loads(text, strict=False)
    except RecursionError:
        return _with_a_fresh_stack(lambda: json.loads(text, strict=False))


def _with_a_fresh_stack(work: Callable[[], Any]) -> Any:
    """What work returns in a thread of its own, which has room for MOST_LEVELS whoever asks for it."""
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
    """Raise ValueError where the value of this text is nested deeper than the mirror keeps."""
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
    """Compact JSON text: bare NaN and Infinity, any integer, characters as they are."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return _written(value)


class _Written(str):
    """Text that stands as it is."""

    __slots__ = ()


def _written(value: Any) -> str:
    out: list[str] = []
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, _Written):
            out.append(item)
        elif isinstance(item, dict):
            out.append("{")
            pending.append(_Written("}"))
            for place, (key, entry) in reversed(list(enumerate(item.items()))):
                pending += [entry, _Written(f"{',' if place else ''}{json.dumps(key, ensure_ascii=False)}:")]
        elif isinstance(item, list | tuple):
            out.append("[")
            pending.append(_Written("]"))
            for place, entry in reversed(list(enumerate(item))):
                pending += [entry, _Written("," if place else "")]
        else:
            out.append(json.dumps(item, ensure_ascii=False))
    return "".join(out)


def mapped(value: Any, change: Callable[[str], Any], *, keys: bool = False) -> Any:
    """The value with every string in it changed, and the keys of its objects, too, where that is asked for."""
    root = [value]
    pending: list[tuple[Any, Any]] = [(root, 0)]
    while pending:
        holder, place = pending.pop()
        entry = holder[place]
        if isinstance(entry, str):
            holder[place] = change(entry)
        elif isinstance(entry, dict):
            holder[place] = {change(key) if keys else key: inner for key, inner in entry.items()}
            pending += [(holder[place], key) for key in holder[place]]
        elif isinstance(entry, list):
            holder[place] = list(entry)
            pending += [(holder[place], number) for number in range(len(entry))]
    return root[0]
