"""When what failed is tried again, as a condition in SQL."""

from __future__ import annotations

from datetime import timedelta

LAST_WAIT = timedelta(hours=6)
"""The longest time that something waits for its retry."""


def due(column: str = "next_try_at") -> str:
    """The condition that nothing failed or that the retry is due; its parameter is the present time.

    A time further in the future than any wait was stored before a clock was set back and is due as well.
    """
    longest = LAST_WAIT // timedelta(microseconds=1)
    return f"({column} IS NULL OR epoch_us({column}) - epoch_us(?::TIMESTAMP) NOT BETWEEN 1 AND {longest})"
