"""Publishes commits soon after they were made, and reports why that fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mirror.daemon.outcomes import stamp
from mirror.errors import MirrorError
from mirror.sync.writer import Writer

log = logging.getLogger("mirror.daemon")


class Publishing:
    """The daemon's publishing. Unexpected failures are passed to `crashed`, as `what` and exception."""

    def __init__(self, writer: Writer, crashed: Callable[[str, BaseException], None]) -> None:
        self._writer = writer
        self._crashed = crashed
        self._logged: str | None = None

    async def regularly(self, interval: Callable[[], float]) -> None:
        """Publish commits soon, even if no pass follows. `interval` returns the configured shortest interval."""
        while True:
            await asyncio.sleep(max(0.5, interval()))
            await self.if_due()

    async def if_due(self) -> None:
        """Publish unless that was done just now. Never raises."""
        # Passes go on even if publishing fails: the writer keeps the failure.
        with suppress(Exception):
            await self._writer.publish_if_due()
        self._log()

    def _log(self) -> None:
        """Log why publishing fails, once for each reason, and that it works again."""
        failure, logged = self._writer.failure, self._logged
        self._logged = None if failure is None else failure.error
        if failure is None:
            if logged is not None:
                log.info("published again")
        elif failure.error != logged:
            if isinstance(failure.cause, MirrorError):
                log.error("not published: %s", failure.error)
            else:
                self._crashed("publishing", failure.cause)

    def status(self) -> dict[str, Any]:
        """Return the part of the status about publications."""
        writer = self._writer
        last = writer.last_published
        return {
            "count": writer.publications,
            "seconds": round(writer.publish_seconds, 3),
            "last_seconds": None if last is None else round(last.seconds, 3),
            "bytes": None if last is None else last.bytes,
            "failed": writer.failures,
            "failing_since": None if writer.failure is None else stamp(writer.failure.since),
            "error": None if writer.failure is None else writer.failure.error,
        }
