"""How long is insisted on an answer: attempts, waits, and the time that a question and its smaller forms may take."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from mirror.remote.errors import CommError, Malformed, NoConnection, RateLimited, SlowAnswer
from mirror.remote.limits import LONGEST_PAUSE


@dataclass(frozen=True)
class RetryPolicy:
    """How long to insist: attempts, seconds in all, and the first and the longest wait between two attempts.

    `attempts` is for what may pass by itself, such as a 5xx; `connects` for a server that cannot be reached or does
    not speak the W&B API; `slow` for answers that do not come in time. A question that can be asked in smaller parts is
    asked for `divisible` times, and once if the answer is slow; so are its smaller parts. `seconds` count from the
    first failure.
    """

    attempts: int = 8
    connects: int = 4
    slow: int = 2
    divisible: int = 3
    seconds: float = 180.0
    first_wait: float = 0.5
    longest_wait: float = 30.0

    def tries(self, failure: CommError, *, divisible: bool, part: bool) -> int:
        """How often the same question, perhaps a `part` of one that failed, is asked while it fails like this."""
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
        """The most that `wait` may give."""
        return min(self.longest_wait, self.first_wait * 2.0**attempt)


@dataclass
class Effort:
    """The time that one question and the smaller ones it is cut into may take together, from their first failure."""

    seconds: float
    began: float | None = None

    limited: float = 0.0
    """Seconds that were waited since the server limits the rate; they do not count."""

    def failed(self, failure: CommError, wait: float) -> None:
        """Take note of a failure, after which so many seconds are waited; the first one starts the clock."""
        if isinstance(failure, RateLimited):
            self.limited += wait
            self.began = self.began and self.began + wait
        elif self.began is None:
            self.began = time.monotonic()

    def succeeded(self) -> None:
        """Stop the clock: what was asked for came, and what follows is another question."""
        self.began = None

    @property
    def left(self) -> float:
        """Seconds that are left; all of them before the first failure."""
        return self.seconds if self.began is None else self.seconds - (time.monotonic() - self.began)

    @property
    def over(self) -> bool:
        """Whether nothing more is to be asked."""
        return self.left <= 0

    def allows(self, failure: CommError, wait: float) -> bool:
        """Whether there is time to wait and ask again, where the failure was noted."""
        return self.limited <= LONGEST_PAUSE if isinstance(failure, RateLimited) else wait <= self.left


_shared: ContextVar[Effort | None] = ContextVar("effort", default=None)


def current(seconds: float) -> Effort:
    """The effort that the caller's questions share, or one of its own."""
    return _shared.get() or Effort(seconds)


@contextmanager
def shared(seconds: float, *, anew: bool = False) -> Iterator[Effort]:
    """Let all questions of the block share one effort; within such a block that of the outer one, unless `anew`."""
    if (outer := _shared.get()) is not None and not anew:
        yield outer
        return
    token = _shared.set(effort := Effort(seconds))
    try:
        yield effort
    finally:
        _shared.reset(token)
