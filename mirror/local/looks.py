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
from functools import partial
from pathlib import Path
from typing import TypeVar

from mirror.threads import DaemonThreads

Result = TypeVar("Result")
Beat = Callable[[], None]

SECONDS = 20.0
"""How long a look may take; one that takes longer tells in between that it goes on."""

THREADS = 16


class Hangs(OSError):
    """A place does not answer."""

    def __init__(self, place: str) -> None:
        super().__init__(errno.ETIMEDOUT, f"{place} does not answer", place)


class _Clock:
    def __init__(self) -> None:
        self.at = time.monotonic()

    def beat(self) -> None:
        self.at = time.monotonic()


class Looks:
    """The looks of one process; `roots` are the followed folders."""

    def __init__(self) -> None:
        self.roots: set[str] = set()
        self._hang: Counter[str] = Counter()
        self._threads = DaemonThreads(THREADS, "looks")

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
        clock = _Clock()
        future = asyncio.get_running_loop().run_in_executor(self._threads, look, clock.beat)
        try:
            while not future.done() and (left := clock.at + SECONDS - time.monotonic()) > 0:
                await asyncio.wait([future], timeout=left)
        except asyncio.CancelledError:
            future.cancel()
            raise
        if future.done():
            return future.result()
        self._hang[place] += 1
        future.add_done_callback(partial(self._answers, place))
        raise Hangs(place)

    def _answers(self, place: str, look: asyncio.Future[Result]) -> None:
        self._hang[place] -= 1
        if not look.cancelled():
            look.exception()  # whatever it is, nobody waits for it any more

    def follow(self, folders: Iterable[Path]) -> None:
        """Take these folders for places, too."""
        self.roots.update(os.path.abspath(folder) for folder in folders)  # noqa: PTH100
