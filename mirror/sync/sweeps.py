"""Pulls the sweeps of a project: what may change of open ones comes with the runs, the others when they may differ."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from mirror.errors import AuthError, CommError
from mirror.remote import sweeps as remote
from mirror.remote.about import About
from mirror.remote.client import FeatureMissing
from mirror.remote.errors import Unreachable
from mirror.store import listings, retries
from mirror.store import sweeps as stored
from mirror.store.records import OpenSweeps, ProjectKey, ProjectListing, SweepRecord
from mirror.store.transaction import Transaction
from mirror.sync.context import Context, utc_now
from mirror.wandb_json import dumps

log = logging.getLogger("mirror.sync")


def list_due(mirrored: OpenSweeps, total: int | None, *, listed_all: bool) -> bool:
    """Return True if all sweeps are to be listed: at first, with all runs, and when the server counts others.

    `total` is the server's count, None if it does not report it.
    """
    if mirrored.listing.listed_at is None or listed_all:
        return True
    return total not in (None, mirrored.count, mirrored.listing.total)


def waits(listing: ProjectListing) -> bool:
    """Return True if the list could not be pulled and its retry is not due yet."""
    return retries.waits(listing.next_try_at, utc_now())


async def pull(
    context: Context, project: ProjectKey, about: About, changed: Collection[str], *, listed_all: bool
) -> None:
    """Store what came of the open sweeps, and request others: all if a list is due, else those of `changed` runs.

    A pass that finds nothing new requests nothing. A failure is recorded, and retried later. Raises Unreachable and
    AuthError.
    """
    mirrored = about.open_sweeps
    records = [
        remote.record_of(context.server.app_url, project, {**mirrored.facts[name], **head})
        for name, head in about.sweeps.items()
        if dumps({**mirrored.facts[name], **head}) != dumps(mirrored.facts[name])
    ]
    if records:
        await context.writer.write(lambda tx: stored.keep(tx, project, records))
    if remote.LACK in context.server.missing_features or waits(mirrored.listing):
        return
    total = (about.project or {}).get("totalSweeps")
    try:
        if list_due(mirrored, total, listed_all=listed_all):
            await _list(context, project, total)
        elif changed:
            await _pull_named(context, project, about, changed)
    except FeatureMissing:
        context.server.missing_features.add(remote.LACK)
    except (Unreachable, AuthError):
        raise
    except CommError as error:
        await record_failure(context, project, stored.LISTING, "sweeps", error)


async def _list(context: Context, project: ProjectKey, total: int | None) -> None:
    nodes: list[dict[str, Any]] = [] if total == 0 else await remote.listed(context.server, project)
    records = {str(node["name"]): remote.record_of(context.server.app_url, project, node) for node in nodes}
    unexplained = total if total != len(records) else None

    def write(tx: Transaction) -> None:
        now = utc_now()
        stored.keep(tx, project, list(records.values()))
        stored.mark_deleted(tx, project, records, at=now)
        listings.record(tx, project, stored.LISTING, at=now, total=unexplained)

    await context.writer.write(write)


async def _pull_named(context: Context, project: ProjectKey, about: About, changed: Collection[str]) -> None:
    """Pull the sweeps of changed runs whose facts did not come with the runs."""
    names = await context.writer.read(lambda db: stored.stale(db, project, list(changed), about.sweeps))
    if not names:
        return
    nodes = await remote.named(context.server, project, names)
    app = context.server.app_url
    gone = utc_now()
    records = [
        remote.record_of(app, project, nodes[name])
        if name in nodes
        else SweepRecord(name, dumps({"name": name}), name=name, deleted_at=gone)
        for name in names
    ]
    await context.writer.write(lambda tx: stored.keep(tx, project, records))


async def record_failure(context: Context, project: ProjectKey, kind: str, what: str, error: CommError) -> None:
    """Record that a list of a project could not be pulled; the pass goes on."""
    log.warning("the %s of %s could not be pulled: %s", what, project, error)

    def write(tx: Transaction) -> None:
        attempts = listings.find(tx.db, project, kind).attempts
        next_try_at = retries.retry_at(attempts, utc_now())
        listings.record_failure(tx, project, kind, str(error), next_try_at=next_try_at)

    await context.writer.write(write)
