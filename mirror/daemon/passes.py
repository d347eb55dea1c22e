"""Runs the passes: never two of one project, a few at once, and a crash of one does not stop the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from msgspec.structs import replace

from mirror.daemon import logs
from mirror.daemon.clients import Clients
from mirror.daemon.outcomes import Ledger
from mirror.daemon.slots import PassSlots, is_backfill
from mirror.errors import MirrorError
from mirror.store import projects, runs
from mirror.store.records import ProjectCursor, ProjectKey
from mirror.sync.context import Context, PassResult, Progress, utc_now
from mirror.sync.engine import PROJECTS_AT_ONCE
from mirror.sync.project import sync_project
from mirror.sync.targets import Target

log = logging.getLogger("mirror.daemon")


class Passes:
    """The daemon's passes. `context` returns the current context, `crashed` is called with unexpected exceptions."""

    def __init__(
        self,
        context: Callable[[], Context],
        clients: Clients,
        ledger: Ledger,
        crashed: Callable[[str, BaseException], None],
    ) -> None:
        self._context = context
        self._clients = clients
        self._ledger = ledger
        self._crashed = crashed
        self._locks: dict[ProjectKey, asyncio.Lock] = {}
        self._slots = PassSlots(PROJECTS_AT_ONCE)

    def lock(self, project: ProjectKey) -> asyncio.Lock:
        """Return the lock that a pass over the project holds."""
        return self._locks.setdefault(project, asyncio.Lock())

    async def run(
        self, target: Target, *, afresh: bool, since: datetime | None = None, progress: Progress | None = None
    ) -> PassResult:
        """Run one pass with the settings at its start; its client stays open until it has ended."""
        lock = self.lock(target.project)
        async with (
            lock,
            self._slots.slot(backfill=afresh or await self._is_backfill(target.project)),
            self._clients.borrowed() as server,
        ):
            context = self._context()
            context = replace(context, server=server, progress=progress or context.progress)
            try:
                result = await sync_project(context, target.project, run_ids=target.run_ids, afresh=afresh, since=since)
                await context.writer.maintain()
            except Exception as error:  # noqa: BLE001 - a bug that one project triggers must not stop the others
                result = await self._crashed_pass(target.project, error)
        logs.log_pass(result, self._ledger.last.get(target.project))
        self._ledger.note_pass(result)
        return result

    async def _is_backfill(self, project: ProjectKey) -> bool:
        if (last := self._ledger.last.get(project)) is not None:
            return is_backfill(last, ProjectCursor(), {})
        try:
            cursor, unsettled = await self._context().writer.read(
                lambda db: (projects.cursor(db, project), runs.unsettled(db, project))
            )
        except MirrorError:
            # The pass itself fails for the same reason, and reports it.
            return True
        return is_backfill(None, cursor, unsettled)

    async def _crashed_pass(self, project: ProjectKey, error: Exception) -> PassResult:
        """Record a crashed pass as failed, also in the published file, and return its result."""
        self._crashed(f"the pass over {project}", error)
        reason = logs.without_secrets(f"unexpected {type(error).__name__}: {error} (mirror.log has the traceback)")
        try:
            await self._context().writer.write(lambda tx: projects.record_failure(tx, project, reason, utc_now()))
        except MirrorError as problem:
            log.error("%s: the failure could not be recorded: %s", project, problem)  # noqa: TRY400
        return PassResult(project, error=reason, exit_code=1)
