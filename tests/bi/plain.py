"""Rows as every client can tell them: text, numbers, true and false, times as text, NULL. Needs the standard library."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any


def plain(rows: Iterable[Iterable[Any]]) -> list[list[Any]]:
    """The rows in an order of their own, each value of a type that JSON has."""
    return sorted(([_value(value) for value in row] for row in rows), key=repr)


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(timespec="microseconds")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(f"{value!r} is {type(value).__name__}, not plain")
