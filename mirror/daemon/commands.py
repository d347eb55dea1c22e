"""The commands of the control socket that work on the mirror: one method for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from mirror.daemon import problems
from mirror.daemon.downloads import Downloads
from mirror.daemon.passes import Passes
from mirror.daemon.search import ProjectSearch
from mirror.errors import CommError, SyncError, UsageError
from mirror.local.commits import FileResult
from mirror.local.watch import Watch, report
from mirror.remote import notices
from mirror.settings import settings as config
from mirror.store.garbage import Garbage
from mirror.sync import removal, targets
from mirror.sync.context import Context, PassResult, Progress

Result = TypeVar("Result")

log = logging.getLogger("mirror.daemon")

CHECK_PATIENCE = 120.0
"""Seconds that a check of the state file waits for other work of the writer; the check itself takes seconds."""


class Stopped(SyncError):
    """A request came during the shutdown, or was not done before it."""

    def __init__(self) -> None:
        super().__init__("the daemon is stopping")


async def unless_stopped(stopping: asyncio.Event, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of the work. Raises Stopped, and cancels the work, if the daemon must stop first."""
    task, stopped = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Stopped
        return await task
    finally:
        task.cancel()
        stopped.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)


class Commands(Struct, frozen=True):
    """The commands, which use the parts of the daemon, and its context and settings of the moment."""

    context: Callable[[], Context]
    settings: Callable[[], config.Settings]
    config_file: Path
    search: ProjectSearch
    passes: Passes
    local: Watch
    downloads: Downloads
    stopping: asyncio.Event

    async def ingest(self, paths: Sequence[str]) -> list[FileResult]:
        """Mirror local runs below these folders; none: those of the config."""
        self._refuse_when_stopping()
        results = await self.local.read_now(paths)
        report(results)
        return results

    async def sync(
        self, paths: Sequence[str], *, afresh: bool, progress: Progress, since: datetime | None = None
    ) -> list[PassResult]:
        """Run one pass over the paths; none: everything in the config. Waits for a pass under way."""
        self._refuse_when_stopping()
        failed: dict[str, CommError] = {}
        notices.listener.set(notices.Notices(progress.notice))
        if not paths and not self.settings().projects:
            raise UsageError(f"nothing to sync: name a PATH, or add projects to {self.config_file}")
        wanted = await self.search.targets(paths or self.settings().projects, failed)
        if not wanted and not failed:
            patterns = ", ".join(paths or self.settings().projects)
            raise UsageError(f"no project on {self.context().server.base_url} matches {patterns}")
        progress.projects_expected(len(wanted))
        results = await asyncio.gather(
            *(self.passes.run(target, afresh=afresh, since=since, progress=progress) for target in wanted)
        )
        await self.context().writer.publish()
        self.downloads.wake()
        return [*results, *targets.not_listed(failed)]

    async def publish(self) -> None:
        """Publish everything that is committed."""
        await self.context().writer.publish()

    async def mend(self, paths: Sequence[str]) -> dict[str, list[str]]:
        """Repair inconsistencies in the store of these projects, between their passes; return what was repaired."""
        return await unless_stopped(self.stopping, self._mend(paths))

    async def _mend(self, paths: Sequence[str]) -> dict[str, list[str]]:
        done = {}
        for project in [target.project for target in await self.search.targets(paths)]:
            async with self.passes.lock(project):
                done[str(project)] = await self.context().writer.mend(project)
        return done

    async def forget(self, paths: Sequence[str]) -> None:
        """Remove these projects and runs from the mirror, and publish. Waits for passes over them."""
        await unless_stopped(self.stopping, self._forget(paths))

    async def _forget(self, paths: Sequence[str]) -> None:
        patterns = [targets.parse(path, self.settings().entity) for path in paths]
        for target in await self.context().writer.read(lambda db: removal.find(db, patterns)):
            forgotten = False
            while not forgotten:
                # To read local runs may take long, and no pass should wait for it.
                await self.local.ingest.idle()
                async with self.passes.lock(target.project):
                    forgotten = await self.local.ingest.forget(target)
            log.info("removed from the mirror: %s", ", ".join(target.paths()))
        await self.context().writer.maintain()
        await self.context().writer.publish()

    async def collect(self, grace: float, *, dry_run: bool) -> Garbage:
        """Delete content that nothing has named for `grace` seconds; a dry run only looks."""
        self._refuse_when_stopping()
        return await self.context().writer.collect(timedelta(seconds=grace), dry_run=dry_run)

    async def check(self) -> str | None:
        """Return the damage of the state file, or None. Raises SyncError if the writer is busy for too long."""
        writer = self.context().writer
        checking = asyncio.create_task(writer.check())
        try:
            while not (await asyncio.wait([checking], timeout=0.5))[0]:
                if writer.busy_seconds > min(problems.STUCK, CHECK_PATIENCE):
                    raise SyncError("the state file was not checked: the writer is busy; try again later")
        finally:
            checking.cancel()
        return checking.result()

    def _refuse_when_stopping(self) -> None:
        if self.stopping.is_set():
            raise Stopped
