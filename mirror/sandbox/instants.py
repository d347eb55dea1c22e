"""Times as the server stores and writes them: naive UTC inside, ISO text with `Z` outside."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def now() -> datetime:
    """Return the current time, naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


def naive(moment: datetime) -> datetime:
    """Convert a time to naive UTC; a naive one is assumed to be UTC."""
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def epoch(moment: datetime) -> float:
    """Return seconds since 1970, as in `_timestamp`."""
    return moment.replace(tzinfo=UTC).timestamp()


def moment(seconds: float) -> datetime:
    """Return the time of a `_timestamp`."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


@lru_cache(maxsize=65536)
def text(value: datetime | None) -> str | None:
    """Return ISO text, with a fraction only if it is not zero."""
    return None if value is None else value.isoformat() + "Z"


@lru_cache(maxsize=4096)
def read(value: str) -> datetime | None:
    """Parse ISO text with `Z`, an offset, no zone (UTC) or only a date; None for any other text."""
    try:
        return naive(datetime.fromisoformat(value))
    except ValueError:
        return None
