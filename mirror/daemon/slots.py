"""Limits how many passes run at a time in the daemon, and chooses the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mirror.store.records import KnownRun, ProjectCursor
from mirror.sync.context import PassResult

LONG_SECONDS = 60.0
"""A project whose last pass took longer than this counts as one that is still being backfilled."""

MANY_ROWS = 1_000_000
"""A pass with more missing history rows than this counts as a backfill."""


class PassSlots:
    """Lets at most `most` passes run. Backfills leave one slot to the other passes, which go first."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._for_backfills = max(1, most - 1)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._backfills: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def slot(self, *, backfill: bool) -> AsyncIterator[None]:
        """Wait for a slot, and keep it for the block."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._backfills if backfill else self._waiting).append(turn)
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(backfill)
            raise
        try:
            yield
        finally:
            self._give_back(backfill)

    def _give_back(self, backfill: bool) -> None:
        self._free += 1
        self._for_backfills += backfill
        self._serve()

    def _serve(self) -> None:
        while self._free:
            backfill = not self._waiting
            queue = self._backfills if backfill else self._waiting
            if not queue or (backfill and not self._for_backfills):
                return
            turn = queue.popleft()
            if not turn.done():
                self._free -= 1
                self._for_backfills -= backfill
                turn.set_result(None)


def is_backfill(last: PassResult | None, cursor: ProjectCursor, unsettled: dict[str, KnownRun]) -> bool:
    """Return True if a pass will probably take long: judged by the last pass, or for the first by what is missing."""
    if last is not None:
        return last.seconds > LONG_SECONDS
    missing = sum(max(run.server_rows - run.rows, 0) for run in unsettled.values() if not run.deleted)
    return cursor.covered_to is None or missing > MANY_ROWS
