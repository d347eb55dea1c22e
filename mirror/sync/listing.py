"""Lists of what a poll sees of runs: those that may have changed, all of them, those of some names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mirror.remote import runs as remote
from mirror.remote.about import About
from mirror.remote.client import FeatureMissing, Server
from mirror.remote.runs import RunHead
from mirror.store.records import KnownRun, ProjectCursor, ProjectKey
from mirror.sync import plan


async def heads(
    server: Server,
    project: ProjectKey,
    *,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    about: About | None = None,
) -> tuple[list[RunHead], int]:
    """Every run that matches `filters`, each once, and how many the scope has in all."""
    found: dict[str, RunHead] = {}
    total = 0
    async for page in remote.heads(server, project, scope=scope, filters=filters, about=about):
        found.update({head.run_id: head for head in page.runs})
        total = page.total
    return list(found.values()), total


async def changed(
    server: Server,
    project: ProjectKey,
    cursor: ProjectCursor,
    known: Mapping[str, KnownRun],
    scope: Mapping[str, Any],
    about: About | None = None,
) -> tuple[list[RunHead], int]:
    """The runs that may have changed since the cursor; all of them where there is none."""
    if cursor.covered_to is None:
        return await heads(server, project, scope=scope, filters=scope, about=about)
    live = plan.live(known)
    if "updatedAt filter" not in server.lacks:
        try:
            filters = plan.poll_filter(cursor, live, scope)
            return await heads(server, project, scope=scope, filters=filters, about=about)
        except FeatureMissing:
            server.lacks.add("updatedAt filter")
    filters = plan.poll_filter(cursor, live, scope, by_update=False)
    return await heads(server, project, scope=scope, filters=filters, about=about)


async def present(server: Server, project: ProjectKey, run_ids: Sequence[str], scope: Mapping[str, Any]) -> set[str]:
    """Those of the runs that are on the server, also where the scope no longer takes them in."""
    found: set[str] = set()
    for start in range(0, len(run_ids), remote.MOST_RUNS):
        names = list(run_ids[start : start + remote.MOST_RUNS])
        listed, _ = await heads(server, project, scope=scope, filters={"name": {"$in": names}})
        found.update(head.run_id for head in listed)
    return found
