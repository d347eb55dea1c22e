"""Limits of the query API: how many queries a token may send, and how many run at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from mirror.web.refusal import Refused

AT_ONCE = 4
"""How many queries run at once, of all tokens together."""

OF_TOKEN = 2
"""How many queries of one token run at once; fewer, so that one token does not keep the others waiting."""

MOST_WAITING = 100
"""How many further queries of one token may wait."""

RATE = 1200
"""How many queries a token may send in a minute if the config does not say."""


@dataclass
class _Use:
    """What one token does now, and how much it may still do."""

    left: float
    counted_at: float
    waiting: int = 0
    running: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OF_TOKEN))


class Turn:
    """The right to run one query; it lasts until the end of the context, or of a future."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._kept = False

    def ends_with(self, work: asyncio.Future[Any]) -> None:
        """Keep the turn until this work is done."""
        held = self._stack.pop_all()
        loop = asyncio.get_running_loop()
        work.add_done_callback(lambda _: loop.create_task(held.aclose()))


class Turns:
    """Lets queries through one after the other. Used in one event loop."""

    def __init__(self, rate: int = RATE) -> None:
        """`rate` is the number of queries that a token may send in a minute."""
        self._rate = rate
        self._uses: dict[str, _Use] = {}
        self._running = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def waiting(self, name: str, seconds: float, *, unlimited: bool = False) -> AsyncIterator[Turn]:
        """Wait for a turn of this token for at most `seconds`. Raises Refused if there is none.

        With `unlimited`, the rate is not limited.
        """
        use = self._uses.setdefault(name, _Use(self._rate, time.monotonic()))
        if not unlimited:
            self._count(use)
        async with AsyncExitStack() as stack:
            with _in_line(use):
                try:
                    async with asyncio.timeout(seconds):
                        await stack.enter_async_context(use.running)
                        await stack.enter_async_context(self._running)
                except TimeoutError:
                    raise Refused(503, f"other queries took all of {seconds:g} s", "try again", 5) from None
            yield Turn(stack)

    def _count(self, use: _Use) -> None:
        now = time.monotonic()
        use.left = min(use.left + (now - use.counted_at) * self._rate / 60, self._rate)
        use.counted_at = now
        if use.left < 1:
            wait = (1 - use.left) * 60 / self._rate
            raise Refused(429, f"this token sent more than {self._rate} queries in a minute", "send fewer", wait)
        use.left -= 1


@contextmanager
def _in_line(use: _Use) -> Iterator[None]:
    if use.waiting >= MOST_WAITING:
        raise Refused(429, f"{MOST_WAITING} queries of this token wait already", "wait for their answers", 1)
    use.waiting += 1
    try:
        yield
    finally:
        use.waiting -= 1
