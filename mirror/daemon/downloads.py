"""The daemon's downloads of file content: beside the passes, after each change of a list, and again after failures."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mirror.content.outcome import Outcome
from mirror.content.pull import pull
from mirror.daemon.clients import Clients
from mirror.errors import MirrorError
from mirror.store import contents
from mirror.store.contents import Selection
from mirror.store.store import RETIRED_GRACE
from mirror.sync import plan
from mirror.sync.context import utc_now
from mirror.sync.writer import Writer

log = logging.getLogger("mirror.daemon")

CHECK_SECONDS = 60.0
"""How often to look for failed downloads that are due again, and after a round that ended early."""

COLLECT_SECONDS = 86_400.0
"""How often to look through the folder of content for what no process lists."""


class Downloads:
    """One round at a time. `selection` returns what the config wants now."""

    def __init__(self, clients: Clients, writer: Writer, selection: Callable[[], Selection]) -> None:
        self._clients = clients
        self._writer = writer
        self._selection = selection
        self._wake = asyncio.Event()
        self._seen: tuple[Selection, tuple[Any, ...], int] | None = None
        self._collected = time.monotonic()
        self._running = False
        self._last: Outcome | None = None
        self._totals = dict.fromkeys(("rounds", "failed_rounds", "stored", "downloaded_bytes", "tables"), 0)

    def wake(self) -> None:
        """Look now for files to download: lists or the config may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Download, until the task is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            if self._selection():
                await self._round_if_due()
            if time.monotonic() - self._collected > COLLECT_SECONDS:
                self._collected = time.monotonic()
                await self._writer.collect(RETIRED_GRACE)

    async def _round_if_due(self) -> None:
        selection = self._selection()
        lists, held, next_try = await self._writer.read(
            lambda db: (contents.lists(db), contents.count_held(db), contents.next_try(db))
        )
        now = utc_now()
        due = next_try is not None and not now < next_try <= now + plan.LAST_RETRY
        if not due and self._seen == (selection, lists, held):
            return
        self._running = True
        try:
            async with self._clients.borrowed() as server:
                outcome = await pull(server, self._writer, selection)
        finally:
            self._running = False
        # A round that ended early is repeated at the next look; so it is when content was lost and forgotten since.
        self._seen = None if outcome.error else (selection, lists, await self._writer.read(contents.count_held))
        self._log(outcome)
        self._last = outcome
        self._totals["rounds"] += 1
        self._totals["failed_rounds"] += outcome.error is not None
        for name in ("stored", "downloaded_bytes", "tables"):
            self._totals[name] += getattr(outcome, name)
        with suppress(MirrorError):
            await self._writer.publish_if_due()

    def _log(self, outcome: Outcome) -> None:
        if outcome.stored:
            log.info("files: %d stored, %.1f MB downloaded", outcome.stored, outcome.downloaded_bytes / 1e6)
        for path, error in list(outcome.failed.items())[:10]:
            log.warning("%s: %s; will be tried again", path, error)
        if outcome.error and (self._last is None or self._last.error != outcome.error):
            log.error("files are not downloaded: %s", outcome.error)

    @property
    def error(self) -> str | None:
        """Why the last round ended early; None if it did not."""
        return self._last.error if self._last else None

    def status(self) -> dict[str, Any]:
        """The part of the status about downloads; `totals` count since the start."""
        last = self._last.as_json() if self._last else None
        return {"running": self._running, "last": last, "totals": dict(self._totals)}
