"""Pulls the reports and saved views of a project: their list now and then, and the specs of those that changed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from mirror.errors import AuthError, CommError
from mirror.remote import reports as remote
from mirror.remote.client import FeatureMissing
from mirror.remote.errors import Unreachable
from mirror.remote.reports import Heads
from mirror.remote.run_records import moment
from mirror.store import listings
from mirror.store import reports as stored
from mirror.store.records import KnownView, ProjectKey
from mirror.store.transaction import Transaction
from mirror.sync import plan
from mirror.sync.context import Context, utc_now
from mirror.sync.sweeps import record_failure, waits
from mirror.wandb_json import dumps

AGAIN = timedelta(hours=1)
"""How often the reports of a project are listed, unless all of its runs are listed more often."""

_JUST_NOW = timedelta(seconds=2)
"""Times of the server are whole seconds: of two edits in the second of a request, one may be missing."""


async def pull(context: Context, project: ProjectKey, *, listed_all: bool) -> None:
    """List the reports and views if that is due, and pull the specs of those that are new or changed.

    A failure is recorded, and retried later; one that the server cannot return keeps back no other. Raises Unreachable
    and AuthError.
    """
    if not context.scope.reports or remote.LACK in context.server.missing_features:
        return
    listing = await context.writer.read(lambda db: listings.find(db, project, stored.LISTING))
    at = listing.listed_at
    due = at is None or listed_all or plan.has_passed(at, AGAIN.total_seconds(), utc_now())
    if not due or waits(listing):
        return
    try:
        await _list(context, project)
    except FeatureMissing:
        context.server.missing_features.add(remote.LACK)
    except (Unreachable, AuthError):
        raise
    except CommError as error:
        await record_failure(context, project, stored.LISTING, "reports", error)


async def _list(context: Context, project: ProjectKey) -> None:
    known = await context.writer.read(lambda db: stored.known(db, project))
    heads = await remote.heads(context.server, project, time.monotonic())
    wanted = changed(heads, known)
    specs = await remote.specs(context.server, project, [heads.nodes[view_id] for view_id in wanted])
    app = context.server.app_url
    records = [
        remote.record_of(app, project, heads.nodes[view_id], spec, heads.asked_at)
        for view_id, spec in specs.found.items()
    ]
    left = heads.nodes.keys() - (set(wanted) - specs.found.keys() - specs.failed.keys())

    def write(tx: Transaction) -> None:
        now = utc_now()
        stored.keep(tx, project, records)
        stored.mark_deleted(tx, project, left, at=now)
        if not specs.failed:
            listings.record(tx, project, stored.LISTING, at=now)

    await context.writer.write(write)
    if specs.failed:
        view_id, error = next(iter(specs.failed.items()))
        named = heads.nodes[view_id].get("displayName") or view_id
        partly = f"{len(specs.failed)} of {len(wanted)} new or changed ones failed, such as {named!r} ({error})"
        await record_failure(context, project, stored.LISTING, "reports", CommError(partly, error))


def changed(heads: Heads, known: Mapping[str, KnownView]) -> list[str]:
    """Return the ids of the views that differ from what is stored, or that may have changed when they were pulled."""
    return [view_id for view_id, node in heads.nodes.items() if _differs(node, known.get(view_id))]


def _differs(node: Mapping[str, Any], known: KnownView | None) -> bool:
    if known is None or known.deleted or known.facts != dumps(dict(node)):
        return True
    updated_at = moment(node.get("updatedAt"))
    return known.asked_at is not None and updated_at is not None and updated_at > known.asked_at - _JUST_NOW
