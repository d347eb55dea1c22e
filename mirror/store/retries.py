"""When what failed is tried again: after ever longer waits, and at once where the clock was set back meanwhile."""

from __future__ import annotations

from datetime import datetime, timedelta

FIRST = timedelta(minutes=1)

LONGEST = timedelta(hours=6)
"""The longest wait of all. A try that is planned further in the future was planned by another clock, and is due."""


def retry_at(attempts: int, now: datetime, after: float | None = None) -> datetime:
    """Return when to try again what failed `attempts` times before; not before `after` seconds, which a server set."""
    wait: timedelta = FIRST * 4 ** min(attempts, 10)
    if after is not None:
        wait = max(wait, timedelta(seconds=min(after, LONGEST.total_seconds())))
    return now + min(LONGEST, wait)


def waits(next_try_at: datetime | None, now: datetime) -> bool:
    """Return True if what failed is not due yet."""
    return next_try_at is not None and now < next_try_at <= now + LONGEST


def outdated(column: str, changed: str, now: str) -> str:
    """Return as an SQL condition that what was done at `column` is to be done again, since a change came later.

    After the clock was set back, a change that comes now is later than what was done in the future.
    """
    return f"({column} IS NULL OR {column} < {changed} OR ({column} > {now} AND {changed} <= {now}))"


def due(column: str) -> str:
    """Return the opposite of `waits` as an SQL condition on a column; its only parameter is the current time."""
    longest = LONGEST // timedelta(microseconds=1)
    return f"(epoch_us({column}) - epoch_us(?::TIMESTAMP) BETWEEN 1 AND {longest}) IS NOT TRUE"
