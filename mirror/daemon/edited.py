"""Pulls the runs that clients of the endpoint have changed on the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from mirror.daemon.downloads import Downloads
from mirror.daemon.passes import Passes
from mirror.daemon.schedule import Schedule
from mirror.daemon.search import ProjectSearch
from mirror.errors import MirrorError
from mirror.remote.errors import NotFound
from mirror.settings.settings import Settings
from mirror.store import runs
from mirror.store.records import ProjectKey
from mirror.sync import targets
from mirror.sync.context import Context
from mirror.sync.targets import Target

RUNS_AT_ONCE = 500
"""How many runs one pass names."""


class Edited(Struct, frozen=True):
    """Uses the parts of the daemon, and its context and settings of the moment."""

    context: Callable[[], Context]
    settings: Callable[[], Settings]
    schedule: Schedule
    search: ProjectSearch
    passes: Passes
    downloads: Downloads

    async def pull(self, place: tuple[str, str], run_ids: Sequence[str]) -> bool:
        """Pull these runs of a project and publish them; return False if that failed.

        Mirrored runs are pulled by name. For others the whole project is, if it is synced: a pass over it knows whether
        `sync.filters` selects them. For what the server does not have, nothing is left to do.
        """
        project = ProjectKey(*place)
        try:
            wanted = await self._targets(project, run_ids)
            for target in wanted:
                result = await self.passes.run(target, afresh=False)
                if result.error is not None and not isinstance(result.failure, NotFound):
                    return False
                if result.live:
                    self.schedule.note_live(project, live=True)
            if wanted:
                await self.context().writer.publish()
        except MirrorError:
            # The writer keeps the failure, and reports it.
            return False
        self.downloads.wake()
        return True

    async def _targets(self, project: ProjectKey, run_ids: Sequence[str]) -> list[Target]:
        known = await self.context().writer.read(lambda db: runs.known(db, project, run_ids))
        named = sorted(run.run_id for run in known.values() if not run.local)
        wanted = [
            Target(project, tuple(named[start : start + RUNS_AT_ONCE])) for start in range(0, len(named), RUNS_AT_ONCE)
        ]
        if len(named) < len(run_ids) and await self._is_synced(project):
            wanted.append(Target(project))
        return wanted

    async def _is_synced(self, project: ProjectKey) -> bool:
        """Return True if the daemon syncs the project; one that is new on the server is looked for."""
        settings = self.settings()
        patterns = [targets.parse(path, settings.entity) for path in settings.projects]
        if project not in self.schedule.projects() and any(
            targets.selects(pattern, Target(project)) for pattern in patterns
        ):
            await self.search.find()
        return project in self.schedule.projects()
