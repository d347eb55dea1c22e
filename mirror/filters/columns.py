"""Tests on columns of the run: converts operands to the column's type, or refuses them with a reason."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mirror.errors import FilterError
from mirror.filters.fields import Column
from mirror.filters.moments import EXAMPLES, moment
from mirror.filters.tree import Compare, Contains, Equal, Every, In, Matches, Not, Test, Type
from mirror.filters.values import clause_text


def converted(tests: tuple[Test, ...], column: Column, clause: str, now: datetime) -> tuple[Test, ...]:
    """The tests; for a time column, with times as naive UTC. Refuses operands that are not comparable to times."""
    return tuple(_time(test, clause, now) for test in tests) if column.type == "time" else tests


def type_warnings(tests: tuple[Test, ...], column: Column, clause: str) -> list[str]:
    """Warnings for operands of a type that the column never has, so that they match no run."""
    if column.type == "time":
        return []
    kind: tuple[type, ...] = (str,) if column.type == "text" else (int, float)
    found = []
    for value in (value for test in tests for value in _operands(test)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            what = "text" if column.type == "text" else "numbers"
            found.append(f"{clause}: the field holds {what}, which {clause_text(value)} never equals")
    return found


def parse_time(value: Any, clause: str, now: datetime) -> datetime:
    """Parse a time to naive UTC: an ISO day, an ISO time with or without a fraction and a zone, or a relative time."""
    if not isinstance(value, str):
        raise FilterError(f"{clause}: {clause_text(value)} is not a time; write {EXAMPLES}")
    try:
        if (relative := moment(value, now)) is not None:
            return relative
        time = datetime.fromisoformat(value)
        return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise FilterError(f"{clause}: {clause_text(value)} is not a time; write {EXAMPLES}") from None


def _time(test: Test, clause: str, now: datetime) -> Test:
    match test:
        case Equal(value):
            return Equal(None if value is None else parse_time(value, clause, now))
        case Compare(operator, value):
            return Compare(operator, None if value is None else parse_time(value, clause, now))
        case In(values, ()):
            return In(tuple(None if value is None else parse_time(value, clause, now) for value in values))
        case Not(tests):
            return Not(tuple(_time(t, clause, now) for t in tests))
        case Every(tests):
            return Every(tuple(_time(t, clause, now) for t in tests))
        case Matches() | In() | Contains():
            raise FilterError(f"{clause}: the field is a time, not text; compare it with $gte and $lt")
        case _:
            return test


def _operands(test: Test) -> list[Any]:
    match test:
        case Equal(value) | Compare(_, value):
            return [value]
        case In(values, _):
            return list(values)
        case Not(tests) | Every(tests):
            return [value for t in tests for value in _operands(t)]
        case Type(_):
            return []
        case _:
            return []
