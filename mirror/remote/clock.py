"""The server's clock, from the `Date` of its answers. The mirror's freshness uses it, never this machine's clock."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta


class ServerClock:
    """Follows the `Date` header of each answer. Between answers it goes on with this machine's monotonic clock."""

    def __init__(self) -> None:
        self._last: tuple[datetime, float] | None = None

    def learn(self, headers: Mapping[str, str]) -> None:
        """Record the `Date` of an answer that has just arrived; one that is missing or not a date changes nothing."""
        try:
            date = email.utils.parsedate_to_datetime(headers.get("date", ""))
        except ValueError:
            return
        if date.tzinfo is not None:
            date = date.astimezone(UTC).replace(tzinfo=None)
        self._last = date, time.monotonic()

    def at(self, moment: float) -> datetime | None:
        """Return the server's time at a moment of `time.monotonic`, in whole seconds of naive UTC.

        It is never later than the true time: a `Date` has whole seconds, and an answer takes time to arrive. None until
        an answer had a `Date`.
        """
        if self._last is None:
            return None
        date, received = self._last
        try:
            return (date + timedelta(seconds=moment - received)).replace(microsecond=0)
        except OverflowError:
            return None
