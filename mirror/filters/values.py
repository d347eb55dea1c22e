"""The values a filter may hold, and how a clause is written in messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mirror.errors import FilterError

MAX_DEPTH = 100
"""How deep filters, operators and values may be nested in each other."""

MAX_NODES = 1000
"""How many values a list or object that is compared as a whole may hold."""


def is_object(value: Any) -> bool:
    """Whether `value` is what JSON calls an object."""
    return isinstance(value, Mapping)


def is_number(value: Any) -> bool:
    """Whether `value` is a number; a bool is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def clause_text(value: Any) -> str:
    """JSON of a value on one line, cut to 120 characters; anything else as Python shows it."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=_shown)
    except (ValueError, TypeError, RecursionError):
        text = f"a {type(value).__name__}"
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= 120 else text[:117] + "..."


def name_text(name: str) -> str:
    """A path or field as messages show it: on one line, cut to 120 characters."""
    text = name if name.isprintable() else clause_text(name)[1:-1]
    return text if len(text) <= 120 else text[:117] + "..."


def _shown(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else repr(value)


def check_text(text: str, clause: str) -> None:
    """Refuse half of a surrogate pair: no stored text can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FilterError(f"{clause}: the text holds half of a surrogate pair, which is no character") from None


def plain(value: Any, clause: str, depth: int) -> Any:
    """`value` with tuples as lists. Refuses what is no JSON value, too deep, or too large to compare as a whole."""
    nodes = 0

    def walk(value: Any, depth: int) -> Any:
        nonlocal nodes
        nodes += 1
        if depth > MAX_DEPTH:
            raise FilterError(f"{clause}: nested deeper than {MAX_DEPTH} levels; write it flatter")
        if nodes > MAX_NODES:
            raise FilterError(f"{clause}: lists and objects of more than {MAX_NODES} values cannot be compared")
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, str):
            check_text(value, clause)
            return value
        if isinstance(value, Mapping):
            for name in value:
                if not isinstance(name, str):
                    raise FilterError(f"{clause}: {name!r} is no key of a JSON object")
                check_text(name, clause)
            return {name: walk(member, depth + 1) for name, member in value.items()}
        if isinstance(value, (list, tuple)):
            return [walk(element, depth + 1) for element in value]
        raise FilterError(f"{clause}: a {type(value).__name__} is no JSON value")

    return walk(value, depth)
