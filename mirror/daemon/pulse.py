"""The daemon's pulse: pings for the watchdog, a line for the service manager, and a look at the clock after a sleep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mirror.daemon.notify import Notifier
from mirror.sync.writer import Writer

BEAT = 5.0
"""Seconds between two beats; a third of the watchdog's patience where that is less."""

SLEPT = 5.0
"""How far the clock on the wall may run away from the one that stands still during a suspend."""


class Pulse:
    """Beats while the event loop turns and the writer's thread takes work; a daemon that hangs misses its pings."""

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
            self._look_at_the_clock()
            self._notifier.status(self._describe())
            if watchdog is not None:
                # Waits behind everything that the writer has to do, and for ever behind what hangs.
                await self._writer.read(lambda _: None)
                self._notifier.ping()
            await asyncio.sleep(pause)

    def _look_at_the_clock(self) -> None:
        """Timers stand still while the machine is suspended, so what is due would wait for the rest of its interval.

        What is planned for a time on the wall would wait for ever when that clock is set back.
        """
        offset = time.time() - time.monotonic()
        slept, self._offset = offset - self._offset, offset
        if slept > SLEPT:
            self._woke(slept)
        elif slept < -SLEPT:
            self._set_back(-slept)
