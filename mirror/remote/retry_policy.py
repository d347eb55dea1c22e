"""Retries: attempts, waits, and the total time for a request and the smaller requests that it is split into."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from msgspec import Struct

from mirror.remote.errors import CommError, Malformed, NoConnection, RateLimited, SlowAnswer
from mirror.remote.limits import LONGEST_PAUSE


class RetryPolicy(Struct, frozen=True):
    """How often and how long to retry: attempts, seconds in total, and the shortest and longest wait between attempts.

    `attempts` applies to failures that may be temporary, such as a 5xx; `connects` to a server that cannot be reached
    or does not speak the W&B API; `slow` to answers that do not arrive in time. A request that can be split into
    smaller ones is tried `divisible` times, and once if the answer is slow; so are the smaller ones. `seconds` count
    from the first failure.
    """

    attempts: int = 8
    connects: int = 4
    slow: int = 2
    divisible: int = 3
    seconds: float = 180.0
    first_wait: float = 0.5
    longest_wait: float = 30.0

    def tries(self, failure: CommError, *, divisible: bool, part: bool) -> int:
        """Return how many attempts a request gets while it fails like this. A `part` belongs to one that failed."""
        if isinstance(failure, NoConnection | Malformed):
            return min(self.connects, self.attempts)
        if isinstance(failure, SlowAnswer):
            return 1 if divisible or part else min(self.slow, self.attempts)
        if divisible and not isinstance(failure, RateLimited):
            return min(self.divisible, self.attempts)
        return self.attempts

    def wait(self, attempt: int) -> float:
        """Exponential backoff with full jitter."""
        return random.uniform(0.5, 1.0) * self.longest(attempt)  # noqa: S311

    def longest(self, attempt: int) -> float:
        """Return the upper limit of `wait`."""
        return min(self.longest_wait, self.first_wait * 2.0**attempt)


class Effort(Struct):
    """The time that a request and the smaller ones it is split into may take together, from their first failure."""

    seconds: float
    began: float | None = None

    limited: float = 0.0
    """Seconds spent waiting because the server limits the rate; they do not count."""

    received: int = 0
    """Bytes of all answers."""

    def failed(self, failure: CommError, wait: float) -> None:
        """Record a failure that is followed by `wait` seconds of waiting; the first one starts the clock."""
        if isinstance(failure, RateLimited):
            self.limited += wait
            self.began = self.began and self.began + wait
        elif self.began is None:
            self.began = time.monotonic()

    def succeeded(self) -> None:
        """Stop the clock: the answer arrived, and what follows is another request."""
        self.began = None

    @property
    def left(self) -> float:
        """Seconds left; all of them before the first failure."""
        return self.seconds if self.began is None else self.seconds - (time.monotonic() - self.began)

    @property
    def over(self) -> bool:
        """True if the time is used up."""
        return self.left <= 0

    def allows(self, failure: CommError, wait: float) -> bool:
        """Return True if there is time to wait and try again after a recorded failure."""
        return self.limited <= LONGEST_PAUSE if isinstance(failure, RateLimited) else wait <= self.left


_shared: ContextVar[Effort | None] = ContextVar("effort", default=None)


def current(seconds: float) -> Effort:
    """Return the effort that the caller's requests share, or a new one."""
    return _shared.get() or Effort(seconds)


def count_received(size: int) -> None:
    """Count the bytes of an answer to one of the requests that share an effort."""
    if (effort := _shared.get()) is not None:
        effort.received += size


@contextmanager
def shared(seconds: float, *, separate: bool = False) -> Iterator[Effort]:
    """Let all requests of the block share one effort. A nested block joins the outer one, unless it is `separate`."""
    if (outer := _shared.get()) is not None and not separate:
        yield outer
        return
    token = _shared.set(effort := Effort(seconds))
    try:
        yield effort
    finally:
        _shared.reset(token)
