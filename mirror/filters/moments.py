"""Relative times in filters: `7d`, `24h`, `today`. They mean a point in time before now, in UTC."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from mirror.errors import FilterError
from mirror.filters.fields import Column, resolve

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(s|m|h|d|w)", re.ASCII)
_DAYS = {"today": 0, "yesterday": 1}
_GROUPS = ("$and", "$or", "$nor")

EXAMPLES = '"2026-03-01", "2026-03-01T12:00:00Z", "7d", "24h" or "today"'
"""What a time may look like, for messages."""


def now_utc() -> datetime:
    """The current time as naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


def moment(text: str, now: datetime) -> datetime | None:
    """The point in time of "7d" (that long before `now`), "now", "today" or "yesterday" (0:00 UTC of that day).

    None for any other text. Raises OverflowError for a time before the year 1.
    """
    if text in _DAYS:
        return datetime(now.year, now.month, now.day) - timedelta(days=_DAYS[text])
    if text == "now":
        return now
    span = _SPAN.fullmatch(text)
    return now - timedelta(seconds=float(span[1]) * _UNITS[span[2]]) if span else None


def resolved(value: Any, now: datetime) -> Any:
    """A filter with its relative times as ISO text, for readers that only know that, such as the server.

    Everything else stays as it is, also what is not a valid filter.
    """
    if not isinstance(value, Mapping):
        return value
    found: dict[str, Any] = {}
    for name, member in value.items():
        if name in _GROUPS and isinstance(member, (list, tuple)):
            found[name] = [resolved(part, now) for part in member]
        else:
            found[name] = _in_condition(member, now) if _is_time(name) else member
    return found


def _is_time(name: object) -> bool:
    try:
        target = resolve(name) if isinstance(name, str) and not name.startswith("$") else None
    except FilterError:
        return False
    return isinstance(target, Column) and target.type == "time"


def _in_condition(value: Any, now: datetime) -> Any:
    if isinstance(value, Mapping):
        return {name: _in_condition(member, now) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_in_condition(member, now) for member in value]
    try:
        at = moment(value, now) if isinstance(value, str) else None
    except OverflowError:
        return value
    return value if at is None else f"{at.isoformat()}Z"
