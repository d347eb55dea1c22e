"""The server's rate limit."""

from __future__ import annotations

import time

SCALE = 1000
"""The number that the server reports for its whole quota, however many requests that is."""


class Limit:
    """A token bucket that holds the requests of one second, and refills steadily."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._size = max(per_second, 1.0)
        self._left = self._size
        self._at = time.monotonic()

    def take(self) -> tuple[bool, dict[str, str]]:
        """Return whether one more request is within the limit, and the rate limit headers."""
        now = time.monotonic()
        self._left = min(self._size, self._left + (now - self._at) * self.per_second)
        self._at = now
        allowed = self._left >= 1
        if allowed:
            self._left -= 1
        headers = {
            "RateLimit-Remaining": str(int(self._left / self._size * SCALE)),
            "RateLimit-Reset": f"{(self._size - self._left) / self.per_second:.3f}",
        }
        if not allowed:
            headers["Retry-After"] = f"{(1 - self._left) / self.per_second:.3f}"
        return allowed, headers
