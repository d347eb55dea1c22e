"""Limits of the query API: how many queries a token may send, and how many run at once."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from mirror.web.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_ONCE = 4
"""How many queries run at once, of all tokens together."""

OF_TOKEN = 2
"""How many queries of one token run at once. The second of a token leaves a place for a token that has none."""

MOST_WAITING = 100
"""How many further queries of one token may wait."""

RATE = 1200
"""How many queries a token may send in a minute if the config does not say."""


class _Use(Struct):
    """What one token does now, how much it may still do, and when it last got a turn."""

    left: float
    counted_at: float
    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    served: int = 0


class Turn:
    """The right to run one query; it lasts until the end of the context, or of a future."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    def ends_with(self, work: asyncio.Future[Any]) -> None:
        """Keep the turn until this work is done."""
        held = self._stack.pop_all()
        ending: set[asyncio.Task[None]] = set()

        def end(_: object) -> None:
            task = asyncio.get_running_loop().create_task(held.aclose())
            # Nothing else keeps the task until it is done.
            ending.add(task)
            task.add_done_callback(ending.discard)

        work.add_done_callback(end)


class Turns:
    """Lets queries through: next is the token with the fewest that run, and of these the one that waits longest.

    Used in one event loop.
    """

    def __init__(self, rate: int = RATE) -> None:
        """`rate` is the number of queries that a token may send in a minute."""
        self._rate = rate
        self._uses: dict[str, _Use] = {}
        self._free = AT_ONCE
        self._served = 0

    @asynccontextmanager
    async def waiting(self, name: str, seconds: float, *, unlimited: bool = False) -> AsyncIterator[Turn]:
        """Wait for a turn of this token for at most `seconds`. Raises Refused if there is none.

        With `unlimited`, the rate is not limited.
        """
        use = self._uses.setdefault(name, _Use(self._rate, time.monotonic()))
        if not unlimited:
            self._count(use)
        if len(use.waiting) >= MOST_WAITING:
            raise Refused(429, f"{MOST_WAITING} queries of this token wait already", "wait for their answers", 1)
        try:
            async with asyncio.timeout(seconds):
                await self._turn_of(use)
        except TimeoutError:
            raise Refused(503, f"other queries took all of {seconds:g} s", "try again", 5) from None
        async with AsyncExitStack() as stack:
            stack.enter_context(self._kept(use))
            yield Turn(stack)

    async def _turn_of(self, use: _Use) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        use.waiting.append(turn)
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn in use.waiting:
                use.waiting.remove(turn)
            elif not turn.cancelled():
                self._give_back(use)
            raise

    @contextmanager
    def _kept(self, use: _Use) -> Iterator[None]:
        try:
            yield
        finally:
            self._give_back(use)

    def _give_back(self, use: _Use) -> None:
        self._free += 1
        use.running -= 1
        self._serve()

    def _serve(self) -> None:
        while self._free:
            able = [one for one in self._uses.values() if one.waiting and self._may_run(one)]
            if not able:
                return
            use = min(able, key=lambda one: (one.running, one.served))
            turn = use.waiting.popleft()
            if turn.done():
                # Whoever waited has left.
                continue
            self._served += 1
            use.running, use.served = use.running + 1, self._served
            self._free -= 1
            turn.set_result(None)

    def _may_run(self, use: _Use) -> bool:
        return use.running < OF_TOKEN and (not use.running or self._free > 1)

    def _count(self, use: _Use) -> None:
        now = time.monotonic()
        use.left = min(use.left + (now - use.counted_at) * self._rate / 60, self._rate)
        use.counted_at = now
        if use.left < 1:
            wait = (1 - use.left) * 60 / self._rate
            raise Refused(429, f"this token sent more than {self._rate} queries in a minute", "send fewer", wait)
        use.left -= 1
