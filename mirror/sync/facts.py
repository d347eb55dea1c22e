"""Pulls what clients of the server's API request beside runs and values; stores it as the server returned it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from mirror.protocol import LIVE_STATES, OPEN_SWEEPS
from mirror.remote import parquet_history
from mirror.remote import runs as remote
from mirror.remote.about import About
from mirror.remote.page_size import MOST_RUNS, PageSize
from mirror.store import facts as stored_facts
from mirror.store import runs as stored_runs
from mirror.store import sweeps as stored_sweeps
from mirror.store.records import ProjectKey, RunFacts
from mirror.store.transaction import Transaction
from mirror.sync import plan, request_windows
from mirror.sync.context import Context, utc_now

SWEEPS_ASKED = 10
"""How many open sweeps a request for runs includes, the newest first. Many a sweep is never ended by its user."""

SERVER_AGAIN = timedelta(hours=6)
"""How old server information may be before the next request for runs includes it again."""


async def due(context: Context, project: ProjectKey) -> About:
    """Return the facts to request with the next page of runs."""
    base_url = context.server.base_url
    pulled_at, sweeps = await context.writer.read(
        lambda db: (
            stored_facts.server_facts_at(db, base_url),
            stored_sweeps.open_sweeps(db, project, OPEN_SWEEPS, SWEEPS_ASKED),
        )
    )
    again = pulled_at is None or plan.has_passed(pulled_at, SERVER_AGAIN.total_seconds(), utc_now())
    return About(server_too=again, open_sweeps=sweeps)


async def keep(context: Context, project: ProjectKey, about: About) -> None:
    """Store the facts of the project, if they changed, and of the server."""
    pulled, server, base_url = about.project, about.server, context.server.base_url
    stored = await context.writer.read(lambda db: stored_facts.of_project(db, project)) if pulled else None
    changed = pulled if pulled != stored else None
    if changed is None and server is None:
        return

    def write(tx: Transaction) -> None:
        if changed is not None:
            stored_facts.keep_project(tx, project, changed)
        if server is not None:
            stored_facts.keep_server(tx, base_url, server, at=utc_now())

    await context.writer.write(write)


async def complete(context: Context, project: ProjectKey) -> None:
    """Pull the facts of runs that an older version mirrored without. A run that the server lacks counts as pulled."""
    lacking = await context.writer.read(lambda db: stored_facts.runs_without(db, project))
    for start in range(0, len(lacking), MOST_RUNS):
        names = lacking[start : start + MOST_RUNS]
        pulled = dict.fromkeys(names, RunFacts())
        filters = {"name": {"$in": names}}
        async for page in remote.run_facts(context.server, project, filters=filters, size=PageSize()):
            pulled |= page
        await context.writer.write(lambda tx, pulled=pulled: stored_facts.keep_runs_by_id(tx, project, pulled))  # type: ignore[misc]


async def find_exports(context: Context, project: ProjectKey, among: Sequence[str] | None) -> None:
    """Ask which histories with nested values the server has exported: it returns their keys dotted then.

    Checks the runs in `among`, or all if it is None. A server without exports is not asked.
    """
    if parquet_history.FEATURE in context.server.missing_features or not (among is None or among):
        return
    wanted = await context.writer.read(lambda db: stored_facts.not_exported(db, project, LIVE_STATES))
    wanted = [run_id for run_id in wanted if among is None or run_id in among]
    for start in range(0, len(wanted), request_windows.REQUEST_RUNS):
        names = wanted[start : start + request_windows.REQUEST_RUNS]
        found = await parquet_history.find(context.server, project, names)
        known = await context.writer.read(lambda db, names=names: stored_runs.known(db, project, names))  # type: ignore[misc]
        exported_to = {
            run_id: (min(export.live_steps) - 1 if export.live_steps else run.server_last_step or 0)
            for run_id, export in found.items()
            if (run := known.get(run_id))
        }
        if exported_to:
            await context.writer.write(
                lambda tx, exported_to=exported_to: stored_facts.keep_exports(tx, project, exported_to)  # type: ignore[misc]
            )
