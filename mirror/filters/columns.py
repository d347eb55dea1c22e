"""Tests on columns of the run: operands are made to fit the column's type, or refused with the reason."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mirror.errors import FilterError
from mirror.filters.fields import Column
from mirror.filters.tree import Compare, Contains, Equal, Every, In, Matches, Not, Test, Type
from mirror.filters.values import clause_text


def fitted(tests: tuple[Test, ...], column: Column, clause: str) -> tuple[Test, ...]:
    """The tests with ISO times as naive UTC for a time column. Refuses operands that no time can be compared with."""
    return tuple(_time(test, clause) for test in tests) if column.type == "time" else tests


def misfits(tests: tuple[Test, ...], column: Column, clause: str) -> list[str]:
    """Warnings for operands of a type that the column never holds, so that they match no run."""
    if column.type == "time":
        return []
    kind: tuple[type, ...] = (str,) if column.type == "text" else (int, float)
    found = []
    for value in (value for test in tests for value in _operands(test)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            what = "text" if column.type == "text" else "numbers"
            found.append(f"{clause}: the field holds {what}, and {clause_text(value)} is never equal to that")
    return found


def instant(value: Any, clause: str) -> datetime:
    """The naive UTC time of an ISO text: a day, or a time with or without a fraction and a zone."""
    if not isinstance(value, str):
        raise FilterError(
            f'{clause}: a time is written as ISO text, as in "2026-03-01T12:00:00Z", not {clause_text(value)}'
        )
    try:
        time = datetime.fromisoformat(value)
        return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise FilterError(f'{clause}: {clause_text(value)} is no ISO time, such as "2026-03-01T12:00:00Z"') from None


def _time(test: Test, clause: str) -> Test:
    match test:
        case Equal(value):
            return Equal(None if value is None else instant(value, clause))
        case Compare(operator, value):
            return Compare(operator, None if value is None else instant(value, clause))
        case In(values, ()):
            return In(tuple(None if value is None else instant(value, clause) for value in values))
        case Not(tests):
            return Not(tuple(_time(t, clause) for t in tests))
        case Every(tests):
            return Every(tuple(_time(t, clause) for t in tests))
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
