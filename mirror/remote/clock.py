"""The server's clock, as its answers tell it. How fresh the mirror is goes by it, never by this machine's clock."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta


class ServerClock:
    """Follows the `Date` header of each answer. Between answers it goes on with this machine's monotonic clock."""

    def __init__(self) -> None:
        self._told: tuple[datetime, float] | None = None

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take note of the `Date` of an answer that has just come; another one, or none, changes nothing."""
        try:
            told = email.utils.parsedate_to_datetime(headers.get("date", ""))
        except ValueError:
            return
        if told.tzinfo is not None:
            told = told.astimezone(UTC).replace(tzinfo=None)
        self._told = told, time.monotonic()

    def at(self, moment: float) -> datetime | None:
        """What the server's clock showed at a moment of `time.monotonic`, in whole seconds of naive UTC.

        Never later than it was: a `Date` has whole seconds, and an answer takes its time to come. None while no answer
        had a `Date`.
        """
        if self._told is None:
            return None
        told, received = self._told
        try:
            return (told + timedelta(seconds=moment - received)).replace(microsecond=0)
        except OverflowError:
            return None
