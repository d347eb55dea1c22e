"""The one thread that touches the store, and the publishing that follows its commits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mirror.errors import StoreError
from mirror.store.records import ProjectKey, Published
from mirror.store.store import Store
from mirror.store.writes import Writes

Result = TypeVar("Result")

log = logging.getLogger("mirror.sync")

PUBLISH_SHARE = 0.1
"""The most of the writer's time that publishing may take while commits follow each other, as in a first sync."""


class Writer:
    """Runs everything that touches the store in one thread, in the order it was asked for.

    After a commit the snapshot for readers is replaced, at most every `publish_interval` seconds, and less often where
    publishing takes long.
    """

    def __init__(self, store: Store, publish_interval: float) -> None:
        self._store = store
        self._interval = publish_interval
        self._due = time.monotonic() + publish_interval
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self.publications = 0
        self.publish_seconds = 0.0
        self.last_published: Published | None = None

    @property
    def spool(self) -> Path:
        """Where files may lie for as long as a pass needs them; emptied when the store is opened."""
        return self._store.spool

    async def read(self, function: Callable[[Store], Result]) -> Result:
        """The result of a function of the store that changes nothing."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, self._store)

    async def write(self, function: Callable[[Writes], Result]) -> Result:
        """Run a function in one transaction: all that it writes is committed together, or nothing of it."""

        def commit(store: Store) -> Result:
            with store.transaction() as tx:
                result = function(tx)
            if time.monotonic() >= self._due:
                self._publish(store)
            return result

        return await self.read(commit)

    async def mend(self, project: ProjectKey) -> list[str]:
        """Bring what disagrees within the store of a project in line; what was done."""
        return await self.write(lambda tx: tx.mend(project))

    async def check(self) -> str | None:
        """What is wrong with the state file on the disk; the store goes on from the published one then."""
        try:
            await self.read(lambda store: store.check())
        except StoreError as error:
            return str(error)
        return None

    async def publish(self) -> None:
        """Make what is committed visible to readers now."""
        await self.read(self._publish)

    async def settle(self) -> None:
        """Do what is too much while commits follow each other: for the end of a pass."""
        try:
            await self.read(lambda store: store.tend())
        except StoreError as error:
            # What was mirrored is safe and readable; only queries are slower.
            log.warning("segments and leaves were not tidied: %s", error)

    async def publish_if_due(self) -> None:
        """Make what is committed visible unless that was done less than the interval ago."""
        if time.monotonic() >= self._due:
            await self.publish()

    async def configure(self, *, tail_values: int, publish_interval: float) -> None:
        """Go on with other limits."""

        def change(store: Store) -> None:
            store.tail_values = tail_values
            self._interval = publish_interval

        await self.read(change)

    def _publish(self, store: Store) -> None:
        started = time.monotonic()
        store.seal()
        published = store.publish()
        ended = time.monotonic()
        if published is not None:
            self.publications += 1
            self.publish_seconds += published.seconds
            self.last_published = published
        self._due = ended + max(self._interval, (ended - started) / PUBLISH_SHARE)

    def close(self) -> None:
        """Wait for what is under way. The store stays open; its owner closes it."""
        self._thread.shutdown(wait=True)
