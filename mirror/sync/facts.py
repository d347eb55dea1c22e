"""Pulls what clients of the server's API ask for beside runs and their values, and keeps it as it was told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from mirror.remote import parquet_history
from mirror.remote import runs as remote
from mirror.remote.about import About
from mirror.remote.runs import PageSize
from mirror.store.records import ProjectKey, RunFacts
from mirror.store.writes import Writes
from mirror.sync import plan
from mirror.sync.context import Context, utc_now

SERVER_AGAIN = timedelta(hours=6)
"""How old what the server told of itself may be before it is asked again, with whatever is asked next."""


async def due(context: Context) -> About:
    """What to ask with the next page of runs."""
    base_url = context.server.base_url
    told_at = await context.writer.read(lambda store: store.server_facts_at(base_url))
    return About(server_too=told_at is None or utc_now() - told_at >= SERVER_AGAIN)


async def keep(context: Context, project: ProjectKey, about: About) -> None:
    """Write what was told of the project and of the server, where it is not what is kept already."""
    told, server, base_url = about.project, about.server, context.server.base_url
    held = await context.writer.read(lambda store: store.project_facts(project)) if told else None
    changed = told if told != held else None
    if changed is None and server is None:
        return

    def write(tx: Writes) -> None:
        if changed is not None:
            tx.keep_project_facts(project, changed)
        if server is not None:
            tx.keep_server_facts(base_url, server, at=utc_now())

    await context.writer.write(write)


async def complete(context: Context, project: ProjectKey) -> None:
    """Ask for what was not kept of runs that an older program mirrored. A run that the server lacks counts as asked."""
    lacking = await context.writer.read(lambda store: store.runs_without_facts(project))
    for start in range(0, len(lacking), remote.MOST_RUNS):
        names = lacking[start : start + remote.MOST_RUNS]
        told = dict.fromkeys(names, RunFacts())
        filters = {"name": {"$in": names}}
        async for page in remote.run_facts(context.server, project, filters=filters, size=PageSize()):
            told |= page
        await context.writer.write(lambda tx, told=told: tx.keep_run_facts(project, told))  # type: ignore[misc]


async def find_exports(context: Context, project: ProjectKey, among: Sequence[str] | None) -> None:
    """Ask which histories with nested values the server has exported: clients are told their keys otherwise then.

    Of these runs, or of all where `among` is None. A server that exports nothing is not asked.
    """
    if parquet_history.FEATURE in context.server.missing_features or not (among is None or among):
        return
    wanted = await context.writer.read(lambda store: store.runs_not_exported(project, plan.LIVE_STATES))
    wanted = [run_id for run_id in wanted if among is None or run_id in among]
    for start in range(0, len(wanted), plan.REQUEST_RUNS):
        names = wanted[start : start + plan.REQUEST_RUNS]
        found = await parquet_history.find(context.server, project, names)
        known = await context.writer.read(lambda store, names=names: store.known_runs(project, names))  # type: ignore[misc]
        told = {
            run_id: (min(export.live_steps) - 1 if export.live_steps else run.server_last_step or 0)
            for run_id, export in found.items()
            if (run := known.get(run_id))
        }
        if told:
            await context.writer.write(lambda tx, told=told: tx.keep_exports(project, told))  # type: ignore[misc]
