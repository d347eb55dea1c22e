"""The daemon's pulse: watchdog pings, the service manager's status line, detection of sleep and clock changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mirror.daemon.notify import Notifier
from mirror.sync.writer import Writer

BEAT = 5.0
"""Seconds between two beats; a third of the watchdog's timeout if that is less."""

SLEPT = 5.0
"""Seconds that the wall clock may move away from the monotonic clock, which stands still during a suspend."""


class Pulse:
    """Beats while the event loop and the writer's thread work; a daemon that hangs misses its pings."""

    def __init__(
        self,
        notifier: Notifier,
        writer: Writer,
        describe: Callable[[], str],
        woke: Callable[[float], None],
        set_back: Callable[[float], None],
    ) -> None:
        self._notifier = notifier
        self._writer = writer
        self._describe = describe
        self._woke = woke
        self._set_back = set_back
        self._offset = time.time() - time.monotonic()

    async def run(self) -> None:
        """Beat until cancelled."""
        watchdog = self._notifier.watchdog
        pause = BEAT if watchdog is None else min(BEAT, watchdog / 3)
        while True:
            self._check_clock()
            self._notifier.status(self._describe())
            if watchdog is not None:
                # Waits until the writer has done its queued work, and for ever if that hangs.
                await self._writer.read(lambda _: None)
                self._notifier.ping()
            await asyncio.sleep(pause)

    def _check_clock(self) -> None:
        """Detect a suspend and a clock that was set back, and report them.

        Timers stand still during a suspend, so a due pass would wait for the rest of its interval. A pass that is
        planned for a time of the wall clock would wait for very long after that clock is set back.
        """
        offset = time.time() - time.monotonic()
        slept, self._offset = offset - self._offset, offset
        if slept > SLEPT:
            self._woke(slept)
        elif slept < -SLEPT:
            self._set_back(-slept)
