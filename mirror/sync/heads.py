"""Lists of what a poll sees of runs: those that may have changed, all of them, those of some names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mirror.remote import runs as remote
from mirror.remote.about import About
from mirror.remote.client import FeatureMissing, Server
from mirror.remote.runs import Page, RunHead
from mirror.store.records import KnownRun, ProjectCursor, ProjectKey
from mirror.sync import plan


@dataclass(frozen=True)
class Listed:
    """Runs that the server listed, each once, and how many the scope has in all.

    `known_to` is a time on the server's clock; what changed until then is in the list.
    """

    runs: list[RunHead]
    total: int
    known_to: datetime | None


async def heads(
    server: Server,
    project: ProjectKey,
    *,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    about: About | None = None,
) -> Listed:
    """Every run that matches `filters`."""
    found: dict[str, RunHead] = {}
    first: Page[RunHead] | None = None
    total = 0
    async with aclosing(remote.heads(server, project, scope=scope, filters=filters, about=about)) as pages:
        async for page in pages:
            first = first or page
            found.update({head.run_id: head for head in page.runs})
            total = page.total
    return Listed(list(found.values()), total, None if first is None else plan.known_to(first))


async def changed(
    server: Server,
    project: ProjectKey,
    cursor: ProjectCursor,
    known: Mapping[str, KnownRun],
    scope: Mapping[str, Any],
    about: About | None = None,
) -> Listed:
    """The runs that may have changed since the cursor; all of them where there is none.

    Also where the cursor is ahead of the server's clock, which was set back since, or told a time to come: nobody knows
    then what changed behind the cursor.
    """
    if cursor.covered_to is None:
        return await heads(server, project, scope=scope, filters=scope, about=about)
    listed = await _since(server, project, cursor, known, scope, about)
    if listed.known_to is not None and cursor.covered_to > listed.known_to + plan.OVERLAP:
        return await heads(server, project, scope=scope, filters=scope)
    return listed


async def _since(
    server: Server,
    project: ProjectKey,
    cursor: ProjectCursor,
    known: Mapping[str, KnownRun],
    scope: Mapping[str, Any],
    about: About | None,
) -> Listed:
    live = plan.live(known)
    if "updatedAt filter" not in server.missing_features:
        try:
            filters = plan.poll_filter(cursor, live, scope)
            return await heads(server, project, scope=scope, filters=filters, about=about)
        except FeatureMissing:
            server.missing_features.add("updatedAt filter")
    filters = plan.poll_filter(cursor, live, scope, by_update=False)
    return await heads(server, project, scope=scope, filters=filters, about=about)


async def present(server: Server, project: ProjectKey, run_ids: Sequence[str], scope: Mapping[str, Any]) -> set[str]:
    """Those of the runs that are on the server, also where the scope no longer takes them in."""
    found: set[str] = set()
    for start in range(0, len(run_ids), remote.MOST_RUNS):
        names = list(run_ids[start : start + remote.MOST_RUNS])
        listed = await heads(server, project, scope=scope, filters={"name": {"$in": names}})
        found.update(head.run_id for head in listed.runs)
    return found
