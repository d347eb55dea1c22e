"""The parameters of a statement as JSON. Values that JSON lacks are objects with one key, such as {"$bytes": ...}."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from mirror.errors import ArgumentError

_LARGEST = 2**63

_WRITE: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
    # A datetime is a date, too, so it comes first.
    (datetime, "$datetime", lambda at: at.isoformat()),
    (date, "$date", lambda day: day.isoformat()),
    (time, "$time", lambda at: at.isoformat()),
    (timedelta, "$interval", lambda span: [span.days, span.seconds, span.microseconds]),
    (Decimal, "$decimal", str),
    (UUID, "$uuid", str),
    (bytes | bytearray | memoryview, "$bytes", lambda data: base64.b64encode(data).decode()),
)

_READ: dict[str, Callable[[Any], Any]] = {
    "$int": int,
    "$float": float,
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$interval": lambda parts: timedelta(*parts),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$bytes": base64.b64decode,
    "$dict": lambda pairs: {key: loaded(value) for key, value in pairs},
}


def dumped(value: Any) -> Any:
    """Return a parameter, or a list or dictionary of them, as JSON. Raises ArgumentError for any other object."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value) if -_LARGEST <= value < _LARGEST else {"$int": str(int(value))}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    for kind, name, write in _WRITE:
        if isinstance(value, kind):
            return {name: write(value)}
    if isinstance(value, Mapping):
        return {"$dict": [[key, dumped(one)] for key, one in value.items()]}
    if isinstance(value, Sequence | set | frozenset):
        return [dumped(one) for one in value]
    if hasattr(value, "item") and hasattr(value, "dtype"):
        return dumped(value.item() if getattr(value, "ndim", 0) == 0 else value.tolist())
    raise ArgumentError(f"a parameter of a statement cannot be a {type(value).__name__}: {str(value)[:40]!r}")


def loaded(value: Any) -> Any:
    """Return what `dumped` got. Raises ArgumentError for anything else."""
    if isinstance(value, list):
        return [loaded(one) for one in value]
    if not isinstance(value, dict):
        return value
    try:
        ((name, written),) = value.items()
        return _READ[name](written)
    except (KeyError, ValueError, TypeError, ArithmeticError):
        raise ArgumentError(f"{str(value)[:60]} is not a parameter of a statement") from None
