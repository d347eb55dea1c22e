"""Notices of failures that are still being retried, so that nobody waits without knowing why."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextvars import ContextVar

from mirror.remote.errors import CommError, Malformed, NoConnection, RateLimited, SlowAnswer

AGAIN = 30.0
"""Within this many seconds a kind of failure is reported once, however many requests meet it."""

LATER = 3
"""A failure that is often over at once, such as a 502, is reported after this many attempts of a request."""

LONG_WAIT = 10.0
"""Shorter pauses, in seconds, that a server asks for are not reported."""

log = logging.getLogger("mirror.remote")


class Notices:
    """Passes texts to `write`, one for each kind of failure in `AGAIN` seconds."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._last: dict[type[CommError], float] = {}

    def put(self, failure: CommError, text: str) -> None:
        """Pass the text on, unless a failure of this kind was reported within `AGAIN` seconds."""
        now = time.monotonic()
        if now - self._last.get(type(failure), -AGAIN) >= AGAIN:
            self._last[type(failure)] = now
            self._write(text)


listener: ContextVar[Notices | None] = ContextVar("listener", default=None)
"""Also gets the notices of this task and of tasks that it starts, for example for a command that waits for them."""


def report(notices: Notices, failure: CommError, text: str) -> None:
    """Report to the server's own notices and to the listener of this task."""
    notices.put(failure, text)
    if (waiting := listener.get()) is not None:
        waiting.put(failure, text)


def is_reported(failure: CommError, attempt: int, wait: float) -> bool:
    """Return True if a failure after which the request is tried again in `wait` seconds is worth reporting."""
    if isinstance(failure, RateLimited):
        return wait >= LONG_WAIT
    return isinstance(failure, NoConnection | Malformed | SlowAnswer) or attempt >= LATER
