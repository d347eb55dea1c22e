"""Words about what goes wrong while it is still tried again, so that nobody waits in silence."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextvars import ContextVar

from mirror.remote.errors import CommError, Malformed, NoConnection, RateLimited, SlowAnswer

AGAIN = 30.0
"""Seconds in which the same kind of failure is told once, however many requests meet it."""

LATER = 3
"""What often passes at once, such as a 502, is told when a request failed so many times."""

LONG_WAIT = 10.0
"""Seconds that a server may ask to be left alone without a word about it."""

log = logging.getLogger("mirror.remote")


class Notices:
    """Passes texts on, one of each kind of failure in `AGAIN` seconds."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: dict[type[CommError], float] = {}

    def put(self, failure: CommError, text: str) -> None:
        """Pass the text on, unless a failure of the kind was told a moment ago."""
        now = time.monotonic()
        if now - self._told.get(type(failure), -AGAIN) >= AGAIN:
            self._told[type(failure)] = now
            self._tell(text)


heard_by: ContextVar[Notices | None] = ContextVar("heard_by", default=None)
"""Who else hears of the requests of this task and of tasks that it starts, such as a command that waits for them."""


def tell(notices: Notices, failure: CommError, text: str) -> None:
    """Tell the server's own notices and whoever waits for the request."""
    notices.put(failure, text)
    if (hearer := heard_by.get()) is not None:
        hearer.put(failure, text)


def worth(failure: CommError, attempt: int, wait: float) -> bool:
    """Whether a request that failed like this, and is tried again after `wait` seconds, is worth a word."""
    if isinstance(failure, RateLimited):
        return wait >= LONG_WAIT
    return isinstance(failure, NoConnection | Malformed | SlowAnswer) or attempt >= LATER
