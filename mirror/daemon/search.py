"""Finds the projects that match the config's patterns, and has them scheduled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from mirror.daemon.clients import Clients
from mirror.daemon.schedule import Schedule
from mirror.errors import CommError, named
from mirror.settings.settings import Settings
from mirror.store.records import ProjectKey
from mirror.sync import targets
from mirror.sync.targets import Target

log = logging.getLogger("mirror.daemon")


class ProjectSearch:
    """`error` is why the projects of some patterns could not be found; `settings` returns the current settings."""

    def __init__(self, clients: Clients, schedule: Schedule, settings: Callable[[], Settings]) -> None:
        self._clients = clients
        self._schedule = schedule
        self._settings = settings
        self.error: str | None = None

    async def targets(self, paths: Sequence[str], failed: dict[str, CommError] | None = None) -> list[Target]:
        """Return the projects and runs that the paths name; entities that cannot be listed are added to `failed`."""
        patterns = [targets.parse(path, self._settings().entity) for path in paths]
        async with self._clients.borrowed() as server:
            return await targets.expand(server, patterns, failed)

    async def find(self) -> None:
        """Find the projects that match the config's patterns now, and schedule them."""
        settings = self._settings()
        failed: dict[str, CommError] = {}
        problem: CommError | None = None
        try:
            wanted = [target.project for target in await self.targets(settings.projects, failed)]
        except CommError as error:
            problem = error
            patterns = [targets.parse(path, settings.entity) for path in settings.projects]
            plain = [ProjectKey(pattern.entity, pattern.project) for pattern in patterns if not pattern.wild]
            wanted = list(dict.fromkeys([*plain, *self._schedule.projects()]))
        if settings is not self._settings():
            return  # Settings that were applied meanwhile start their own search.
        if failed:
            kept = [project for project in self._schedule.projects() if project.entity in failed]
            wanted = list(dict.fromkeys([*wanted, *kept]))
        reasons = [named(f"{entity}/*", str(error)) for entity, error in failed.items()]
        self.error = str(problem) if problem else "; ".join(reasons) or None
        if self.error:
            log.warning("%s; keeping the projects found until now", self.error)
        self._schedule.set_projects(wanted, settings.sync)
