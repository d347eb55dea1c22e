"""Sends history requests ahead of the commits, so that one slow run does not hold up the others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from collections.abc import Set as AbstractSet
from typing import Any

from msgspec import Struct

from mirror.remote.history import Window
from mirror.sync.history_batch import Batch

Fetch = Callable[[list[Window]], Coroutine[Any, Any, Batch]]


class _Job(Struct, frozen=True):
    task: asyncio.Task[Batch]
    runs: frozenset[str]


async def in_order(
    jobs: Iterator[list[Window]], fetch: Fetch, *, ahead: int, in_trouble: AbstractSet[str], dropped: AbstractSet[str]
) -> AsyncGenerator[Batch]:
    """Yield the answers to all jobs: those of one run in their order, otherwise as they arrive.

    `ahead` requests are under way at a time, and up to twice as many while some are for runs `in_trouble`; for these
    runs nothing further is requested until their trouble is over, and for `dropped` ones nothing at all. Close it with
    `aclosing`, which cancels the requests under way.
    """
    queue = _Queue(jobs, in_trouble, dropped)
    under_way: list[_Job] = []
    try:
        while True:
            while (
                _untroubled(under_way, in_trouble) < ahead and len(under_way) < 2 * ahead and (windows := queue.next())
            ):
                runs = frozenset(window.run_id for window in windows)
                under_way.append(_Job(asyncio.create_task(fetch(windows)), runs))
            if not under_way:
                return
            if (job := _ready(under_way)) is not None:
                under_way.remove(job)
                yield job.task.result()
            else:
                pending = [job.task for job in under_way if not job.task.done()]
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for job in under_way:
            job.task.cancel()
        await asyncio.gather(*(job.task for job in under_way), return_exceptions=True)


def _untroubled(under_way: list[_Job], in_trouble: AbstractSet[str]) -> int:
    """Return the number of open requests that are not for runs in trouble."""
    return sum(not job.task.done() and not job.runs & in_trouble for job in under_way)


def _ready(under_way: list[_Job]) -> _Job | None:
    """Return the first answered job whose runs have no earlier job that is still open."""
    earlier: set[str] = set()
    for job in under_way:
        if job.task.done() and not job.runs & earlier:
            return job
        earlier |= job.runs
    return None


class _Queue:
    """Jobs in their order; those of runs in trouble are held back until the trouble is over."""

    def __init__(self, jobs: Iterator[list[Window]], in_trouble: AbstractSet[str], dropped: AbstractSet[str]) -> None:
        self._jobs = jobs
        self._in_trouble = in_trouble
        self._dropped = dropped
        self._held: deque[list[Window]] = deque()

    def next(self) -> list[Window] | None:
        """Return windows that may be requested now; None if there are none, for now or at all."""
        for index, windows in enumerate(self._held):
            if not any(window.run_id in self._in_trouble for window in windows):
                del self._held[index]
                if wanted := self._wanted(windows):
                    return wanted
                return self.next()
        while (coming := next(self._jobs, None)) is not None:
            waiting = self._in_trouble | {window.run_id for held in self._held for window in held}
            wanted = self._wanted(coming)
            if later := [window for window in wanted if window.run_id in waiting]:
                self._held.append(later)
            if now := [window for window in wanted if window.run_id not in waiting]:
                return now
        return None

    def _wanted(self, windows: list[Window]) -> list[Window]:
        return [window for window in windows if window.run_id not in self._dropped]
