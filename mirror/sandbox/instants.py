"""Moments as the server keeps and writes them: naive UTC inside, ISO text with `Z` outside."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def now() -> datetime:
    """The present moment, naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


def naive(moment: datetime) -> datetime:
    """The same moment as naive UTC; a naive one is taken to be UTC already."""
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def epoch(moment: datetime) -> float:
    """Seconds since 1970, as `_timestamp` holds them."""
    return moment.replace(tzinfo=UTC).timestamp()


def moment(seconds: float) -> datetime:
    """The moment that `_timestamp` names."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


@lru_cache(maxsize=65536)
def text(value: datetime | None) -> str | None:
    """ISO text; a fraction only where there is one."""
    return None if value is None else value.isoformat() + "Z"


@lru_cache(maxsize=4096)
def read(value: str) -> datetime | None:
    """The moment that ISO text names: with `Z`, an offset, no zone (UTC) or a bare day; None for any other text."""
    try:
        return naive(datetime.fromisoformat(value))
    except ValueError:
        return None
