"""Lists of run heads: those that may have changed, all of them, or those of some names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any

from msgspec import Struct

from mirror.remote import runs as remote
from mirror.remote.about import About
from mirror.remote.client import FeatureMissing, Server
from mirror.remote.page_size import MOST_RUNS
from mirror.remote.run_records import RunHead
from mirror.remote.runs import Page
from mirror.store.records import KnownRun, ProjectCursor, ProjectKey
from mirror.sync import plan


class Listed(Struct, frozen=True):
    """Runs that the server listed, each once, and the number of runs in the scope.

    `known_to` is a time on the server's clock; every change until then is in the list. `asked_at` is the server's time
    at the request, None if it does not report it.
    """

    runs: list[RunHead]
    total: int
    known_to: datetime | None
    asked_at: datetime | None = None


async def heads(
    server: Server,
    project: ProjectKey,
    *,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    about: About | None = None,
) -> Listed:
    """Return every run that matches `filters`."""
    found: dict[str, RunHead] = {}
    first: Page[RunHead] | None = None
    total = 0
    async with aclosing(remote.heads(server, project, scope=scope, filters=filters, about=about)) as pages:
        async for page in pages:
            first = first or page
            found.update({head.run_id: head for head in page.runs})
            total = page.total
    if first is None:
        return Listed([], 0, None)
    return Listed(list(found.values()), total, plan.known_to(first), first.asked_at)


async def changed(
    server: Server,
    project: ProjectKey,
    cursor: ProjectCursor,
    known: Mapping[str, KnownRun],
    scope: Mapping[str, Any],
    about: About | None = None,
) -> Listed:
    """Return the runs that may have changed since the cursor; all runs if there is no cursor.

    All runs as well if the cursor is ahead of the server's clock, because the clock was set back since or had reported
    a future time: then the changes after the cursor are unknown.
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
    """Return those of the runs that exist on the server, including those that the scope no longer selects."""
    found: set[str] = set()
    for start in range(0, len(run_ids), MOST_RUNS):
        names = list(run_ids[start : start + MOST_RUNS])
        listed = await heads(server, project, scope=scope, filters={"name": {"$in": names}})
        found.update(head.run_id for head in listed.runs)
    return found
