"""Sweeps of projects, stored as the server returned them and as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mirror.store import listings, projects
from mirror.store.database import Database
from mirror.store.records import OpenSweeps, ProjectKey, SweepRecord
from mirror.store.transaction import Transaction
from mirror.wandb_json import loads

LISTING = "sweeps"

_HERE = "entity = ? AND project = ?"
_SHAPE = {
    **dict.fromkeys(("sweep_id", "name", "state", "method", "description", "config", "config_yaml"), "VARCHAR"),
    **dict.fromkeys(("metric", "goal"), "VARCHAR"),
    "best_loss": "DOUBLE",
    "runs_expected": "BIGINT",
    "prior_runs": "VARCHAR",
    "created_at": "TIMESTAMP",
    "updated_at": "TIMESTAMP",
    "url": "VARCHAR",
    "facts": "VARCHAR",
    "deleted_at": "TIMESTAMP",
}
_LISTED = listings.Listed("sweep_records", "sweep_id", _SHAPE)


def keep(tx: Transaction, project: ProjectKey, records: Sequence[SweepRecord]) -> None:
    """Insert these sweeps, or replace what is stored of them."""
    if records:
        projects.add(tx, project)
        _LISTED.keep(tx, project, records)


mark_deleted = _LISTED.mark_deleted
forget = _LISTED.forget


def open_sweeps(db: Database, project: ProjectKey, states: Sequence[str], most: int) -> OpenSweeps:
    """How the sweeps of a project were listed, and the newest ones in these states, at most so many."""
    # Two plain statements take half the time of one that does all of it, and the second is mostly not needed.
    here = [project.entity, project.project]
    rows = db.run(
        f"SELECT created_at, sweep_id, state FROM store.sweep_records WHERE {_HERE} AND deleted_at IS NULL", here
    )
    found = sorted(((at or datetime.min, sweep_id) for at, sweep_id, state in rows if state in states), reverse=True)
    facts: dict[str, dict[str, Any]] = {}
    if newest := [sweep_id for _, sweep_id in found[:most]]:
        chosen = "sweep_id IN (SELECT unnest(?::VARCHAR[]))"
        texts = db.run(f"SELECT facts FROM store.sweep_records WHERE {_HERE} AND {chosen}", [*here, newest])
        facts = {one["name"]: one for one in (loads(text) for (text,) in texts)}
    return OpenSweeps(listings.find(db, project, LISTING), len(rows), facts)


def stale(db: Database, project: ProjectKey, run_ids: Sequence[str], fresh: Mapping[str, object]) -> list[str]:
    """The sweeps that are not stored although runs name them, and those of these runs except the `fresh` ones."""
    return [
        name
        for (name,) in db.run(
            f"""
            SELECT DISTINCT r.sweep FROM store.run_records AS r
            WHERE r.{_HERE.replace("AND ", "AND r.")} AND r.sweep <> '' AND r.storage_id <> '' AND r.deleted_at IS NULL
            AND (
                NOT EXISTS (
                    SELECT 1 FROM store.sweep_records AS s
                    WHERE s.entity = r.entity AND s.project = r.project AND s.sweep_id = r.sweep
                )
                OR r.run_id IN (SELECT unnest(?::VARCHAR[]))
            )
            ORDER BY 1
            """,
            [project.entity, project.project, list(run_ids)],
        )
        if name not in fresh
    ]
