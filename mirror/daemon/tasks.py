"""The background work of the daemon: a crash is logged and recorded, and endless work is started again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from mirror.daemon.outcomes import Ledger, kept_running

log = logging.getLogger("mirror.daemon")


class Tasks:
    """Tasks that are cancelled when the daemon stops."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Awaitable[Any], what: str = "task") -> None:
        """Run a background task; it is cancelled when the daemon stops, and a crash of it is reported as `what`."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

        def done(task: asyncio.Future[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self.crashed(what, error)

        task.add_done_callback(done)

    def keep(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run endless work in the background until the daemon stops; start it again when it crashes."""
        self.start(self.kept(what, work), what)

    async def kept(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do work until it returns; start it again when it crashes."""

        def crashed(error: BaseException) -> None:
            self.crashed(what, error)
            self._ledger.note_down(what, error)

        await kept_running(work, crashed, lambda: self._ledger.note_recovered(what))

    def crashed(self, what: str, error: BaseException) -> None:
        """Log and record an unexpected exception; the daemon goes on."""
        log.error("%s crashed; the daemon goes on", what, exc_info=error, extra={"fields": {"event": "crash"}})
        self._ledger.note_crash(what, error)

    async def stop(self) -> None:
        """Cancel all tasks, and wait for their ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
