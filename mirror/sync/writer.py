"""The one thread that touches the store, and the publishing that follows its commits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mirror.store.store import Store
from mirror.store.writes import Writes

Result = TypeVar("Result")


class Writer:
    """Runs everything that touches the store in one thread, in the order it was asked for.

    After a commit the snapshot for readers is replaced, at most every `publish_interval` seconds.
    """

    def __init__(self, store: Store, publish_interval: float) -> None:
        self._store = store
        self._interval = publish_interval
        self._published = time.monotonic()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def read(self, function: Callable[[Store], Result]) -> Result:
        """The result of a function of the store that changes nothing."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, self._store)

    async def write(self, function: Callable[[Writes], Result]) -> Result:
        """Run a function in one transaction: all that it writes is committed together, or nothing of it."""

        def commit(store: Store) -> Result:
            with store.transaction() as tx:
                result = function(tx)
            if time.monotonic() - self._published >= self._interval:
                self._publish(store)
            return result

        return await self.read(commit)

    async def publish(self) -> None:
        """Make what is committed visible to readers now."""
        await self.read(self._publish)

    async def publish_if_due(self) -> None:
        """Make what is committed visible unless that was done less than the interval ago."""
        if time.monotonic() - self._published >= self._interval:
            await self.publish()

    async def configure(self, *, tail_values: int, publish_interval: float) -> None:
        """Go on with other limits."""

        def change(store: Store) -> None:
            store.tail_values = tail_values
            self._interval = publish_interval

        await self.read(change)

    def _publish(self, store: Store) -> None:
        store.seal()
        store.publish()
        self._published = time.monotonic()

    def close(self) -> None:
        """Wait for what is under way. The store stays open; its owner closes it."""
        self._thread.shutdown(wait=True)
