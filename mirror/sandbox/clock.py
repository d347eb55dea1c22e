"""The server's clock, and the lock of all that changes with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

from mirror.sandbox import instants


class Clock:
    """`now` is a callable that returns naive UTC, and may be replaced.

    `lock` is reentrant: hold it to make several changes that every request sees together. `version` counts changes.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.now: Callable[[], datetime] = instants.now
        self.version = 0

    def moment(self) -> datetime:
        """Return the server's current time, naive UTC."""
        return instants.naive(self.now())

    def changed(self) -> None:
        """Record that answers may be different now."""
        self.version += 1
