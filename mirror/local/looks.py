"""Looks at folders and files in threads, each for a limited time: a network folder may never answer.

A place is a folder that is followed, with everything below it, or the folder of a file elsewhere. While a look at a
place hangs, further ones are refused at once, so that it costs a thread, and holds up no other place.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mirror.threads import DaemonThreads

Result = TypeVar("Result")
Beat = Callable[[], None]

SECONDS = 20.0
"""How long a look may take; one that takes longer reports in between that it goes on."""

THREADS = 16


class Hangs(OSError):
    """A place does not answer."""

    def __init__(self, place: str) -> None:
        super().__init__(errno.ETIMEDOUT, f"{place} does not answer", place)


class _Look:
    """A look under way; `late` once it has reported nothing for too long."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.at = time.monotonic()
        self.late = False

    def beat(self) -> None:
        """Report that it goes on."""
        self.at = time.monotonic()


class Looks:
    """The looks of one process; `roots` are the followed folders."""

    def __init__(self) -> None:
        self.roots: set[str] = set()
        self._hang: Counter[str] = Counter()
        self._threads = DaemonThreads(THREADS, "looks")
        self._pending: dict[asyncio.Future[Any], tuple[_Look, Future[Any]]] = {}
        self._next_check: asyncio.TimerHandle | None = None

    def place_of(self, path: Path | str) -> str:
        """Return the place of a path."""
        text = os.path.abspath(path)  # noqa: PTH100 - `absolute` keeps `..`, and `resolve` would look
        within = [root for root in self.roots if text == root or text.startswith(f"{root.rstrip(os.sep)}{os.sep}")]
        return max(within, key=len, default=os.path.dirname(text))  # noqa: PTH120

    async def at(self, path: Path | str, look: Callable[[Beat], Result]) -> Result:
        """Return what `look` returns in a thread; it calls its argument while it goes on. Raises Hangs."""
        place = self.place_of(path)
        if self._hang[place]:
            raise Hangs(place)
        one = _Look(place)
        work = self._threads.submit(look, one.beat)
        answer: asyncio.Future[Result] = asyncio.wrap_future(work)
        self._pending[answer] = one, work
        if self._next_check is None:
            self._check()
        try:
            return await answer
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not one.late or (task is not None and task.cancelling()):
                raise
            raise Hangs(place) from None
        finally:
            del self._pending[answer]

    def _check(self) -> None:
        """Give up the looks that are late, and check again while there are others: one timer for all costs less."""
        now, loop = time.monotonic(), asyncio.get_running_loop()
        for answer, (one, work) in self._pending.items():
            if now - one.at >= SECONDS and not answer.done():
                one.late = True
                self._hang[one.place] += 1
                work.add_done_callback(partial(self._answers, loop, one.place))
                answer.cancel()
        self._next_check = loop.call_later(SECONDS / 8, self._check) if self._pending else None

    def _answers(self, loop: asyncio.AbstractEventLoop, place: str, _: object) -> None:
        """Note in the loop that a place answers again, or that its look never began; called in a thread."""
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._hang.subtract, [place])

    def follow(self, folders: Iterable[Path]) -> None:
        """Take these folders for places, too."""
        self.roots.update(os.path.abspath(folder) for folder in folders)  # noqa: PTH100
