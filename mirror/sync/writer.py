"""The one thread that uses the store, and the publishing after its commits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from mirror.errors import MirrorError, StoreError, one_line
from mirror.store import repair
from mirror.store.blobs import Blobs
from mirror.store.database import Database
from mirror.store.garbage import Garbage
from mirror.store.records import ProjectKey, Published
from mirror.store.sharing import Sharing
from mirror.store.store import Store
from mirror.store.transaction import Transaction

Result = TypeVar("Result")

log = logging.getLogger("mirror.sync")

PUBLISH_SHARE = 0.1
"""The most of the writer's time that publishing may take while commits follow each other, as in a first sync."""


class Failure(Struct, frozen=True):
    """Why readers do not see the commits: failing since (UTC), number of attempts, and the last error."""

    since: datetime
    count: int
    error: str
    cause: Exception


class Writer:
    """Runs all work on the store in one thread, in the order of the calls.

    After a commit the published file is replaced, at most every `publish_interval` seconds, and less often if
    publishing takes long. A failure to publish does not fail the commit: `failure` reports it until one succeeds.
    """

    def __init__(self, store: Store, publish_interval: float) -> None:
        self._store = store
        self._interval = publish_interval
        self._due = time.monotonic() + publish_interval
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self.publications = 0
        self.publish_seconds = 0.0
        self.last_published: Published | None = None
        self.failure: Failure | None = None
        self.failures = 0
        self._working_since: float | None = None

    @property
    def busy_seconds(self) -> float:
        """Seconds that the current work has taken until now; 0 while the thread waits for work."""
        since = self._working_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def spool(self) -> Path:
        """The folder for temporary files of a pass; emptied when the store is opened."""
        return self._store.spool

    @property
    def segments(self) -> Path:
        """The folder of history segments."""
        return self._store.home.history

    @property
    def blobs(self) -> Blobs:
        """The folder of file content."""
        return self._store.blobs

    async def collect(self, grace: timedelta, *, dry_run: bool = False) -> Garbage:
        """Delete content that nothing has named for `grace`; a dry run only looks."""
        return await self._in_thread(lambda store: store.collect(grace, dry_run=dry_run))

    async def read(self, question: Callable[[Database], Result]) -> Result:
        """Return what a function that only reads finds in the store."""
        return await self._in_thread(lambda store: store.read(question))

    async def write(self, change: Callable[[Transaction], Result]) -> Result:
        """Run a function in one transaction: everything that it writes is committed, or nothing."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, change)

    def _commit(self, change: Callable[[Transaction], Result]) -> Result:
        with self._working():
            with self._store.transaction() as tx:
                result = change(tx)
            if time.monotonic() >= self._due:
                # The commit stands; `failure` has the reason, and the next publication raises it.
                with suppress(Exception):
                    self._publish(self._store)
        return result

    async def _in_thread(self, work: Callable[[Store], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    def _run(self, work: Callable[[Store], Result]) -> Result:
        with self._working():
            return work(self._store)

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._working_since = time.monotonic()
        try:
            yield
        finally:
            self._working_since = None

    async def mend(self, project: ProjectKey) -> list[str]:
        """Repair inconsistencies in the store of a project; return what was repaired."""
        return await self.write(lambda tx: repair.mend(tx, project))

    async def check(self) -> str | None:
        """Check the state file on disk; return its damage or None. The published file replaces a damaged one."""
        try:
            await self._in_thread(Store.check)
        except StoreError as error:
            return str(error)
        return None

    async def publish(self) -> None:
        """Publish all commits to readers now."""
        await self._in_thread(self._publish)

    async def maintain(self) -> None:
        """Run maintenance after a pass."""
        try:
            await self._in_thread(Store.tend)
        except StoreError as error:
            # What was mirrored is safe and readable; only queries are slower.
            log.warning("maintenance of segments and leaves failed: %s", error)

    async def publish_if_due(self) -> None:
        """Publish unless the last publication is less than the interval ago."""
        if time.monotonic() >= self._due:
            await self.publish()

    async def configure(self, *, tail_values: int, publish_interval: float, sharing: Sharing | None) -> None:
        """Change the limits."""

        def change(store: Store) -> None:
            store.tail_values = tail_values
            self._interval = publish_interval
            store.share(sharing)

        await self._in_thread(change)

    def _publish(self, store: Store) -> None:
        started = time.monotonic()
        try:
            store.seal()
            published = store.publish()
        except Exception as error:
            self._note_failure(error)
            raise
        finally:
            ended = time.monotonic()
            self._due = ended + max(self._interval, (ended - started) / PUBLISH_SHARE)
        self.failure = None
        if published is not None:
            self.publications += 1
            self.publish_seconds += published.seconds
            self.last_published = published

    def _note_failure(self, error: Exception) -> None:
        self.failures += 1
        reason = str(error) if isinstance(error, MirrorError) else f"unexpected {type(error).__name__}: {error}"
        before = self.failure
        since, count = (before.since, before.count) if before else (datetime.now(UTC).replace(tzinfo=None), 0)
        self.failure = Failure(since, count + 1, one_line(reason), error)

    def close(self) -> None:
        """Wait for the work under way. The store stays open; its owner closes it."""
        self._thread.shutdown(wait=True)
