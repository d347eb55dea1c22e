"""One budget of requests for the whole process: how many at once, and when the server wants quiet."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a `Retry-After` header asks for, given as a number or as a date; None where there is none."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        moment = email.utils.parsedate_tz(text)
        return max(0.0, email.utils.mktime_tz(moment) - time.time()) if moment else None


class Limiter:
    """Lets at most `concurrency` requests run, and none while the server has asked for a pause."""

    def __init__(self, concurrency: int) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._quiet_until = 0.0
        self.remaining: float | None = None
        """What the server last said is left of the budget; None when it does not say."""

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a free place and for the end of any pause."""
        async with self._slots:
            # A pause may grow while it is waited for; its end is a time, not an event.
            while (wait := self._quiet_until - time.monotonic()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait)
            yield

    def pause(self, seconds: float) -> None:
        """Hold back every request for that long; a longer pause already under way stays."""
        self._quiet_until = max(self._quiet_until, time.monotonic() + seconds)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Wait out an empty budget, as `RateLimit-Remaining` and `RateLimit-Reset` (seconds, maybe a fraction) tell."""
        try:
            self.remaining = float(headers["ratelimit-remaining"])
            reset = float(headers.get("ratelimit-reset", "0"))
        except (KeyError, ValueError):
            return
        if self.remaining < 1:
            self.pause(min(reset, 60.0))
