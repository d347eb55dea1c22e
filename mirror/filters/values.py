"""The values that a filter may contain, and how messages show clauses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mirror.errors import FilterError

MAX_DEPTH = 100
"""How deep filters, operators and values may be nested."""

MAX_NODES = 1000
"""The most values of a list or object that is compared as a whole."""


def is_object(value: Any) -> bool:
    """Return True if `value` is a JSON object."""
    return isinstance(value, Mapping)


def is_number(value: Any) -> bool:
    """Return True if `value` is a number. A bool is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def clause_text(value: Any) -> str:
    """JSON of a value on one line, cut to 120 characters; the `repr` of what is not JSON."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=_shown)
    except (ValueError, TypeError, RecursionError):
        text = f"a {type(value).__name__}"
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= 120 else text[:117] + "..."


def name_text(name: str) -> str:
    """A path or field for messages: on one line, cut to 120 characters."""
    text = name if name.isprintable() else clause_text(name)[1:-1]
    return text if len(text) <= 120 else text[:117] + "..."


def _shown(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else repr(value)


def check_text(text: str, clause: str) -> None:
    """Raise FilterError for half of a surrogate pair, which no stored text can contain."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FilterError(f"{clause}: the text contains half of a surrogate pair, which is not a character") from None


def plain(value: Any, clause: str, depth: int) -> Any:
    """`value` with tuples as lists. Raises FilterError if it is not JSON, too deep, or too large to compare."""
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
                    raise FilterError(f"{clause}: {name!r} is not a key of a JSON object")
                check_text(name, clause)
            return {name: walk(member, depth + 1) for name, member in value.items()}
        if isinstance(value, (list, tuple)):
            return [walk(element, depth + 1) for element in value]
        raise FilterError(f"{clause}: a {type(value).__name__} is not a JSON value")

    return walk(value, depth)
