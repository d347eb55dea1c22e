"""Removes runs or a whole project from the mirror, with everything that is mirrored of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from mirror.store import (
    artifacts,
    contents,
    listings,
    local,
    meta,
    projects,
    reports,
    rids,
    staging,
    sweeps,
    table_views,
    wide,
    wide_names,
)
from mirror.store.database import Database
from mirror.store.names import folded, identifier
from mirror.store.records import ProjectKey
from mirror.store.transaction import Transaction

_OF_RUNS = (
    *("history_tail", "run_keys", *staging.TABLES, "run_history", "local_states", *local.EXTRAS),
    *("leaf_rows", "tag_positions"),
)
"""The tables that name a run by its rid, but store.run_records itself."""

_HERE = "entity = ? AND project = ?"


def runs(tx: Transaction, project: ProjectKey, run_ids: Sequence[str]) -> None:
    """Remove those of these runs that are mirrored, with their changes and the record of their local files.

    Merges of segments free the bytes of their values.
    """
    for run_id in rids.find(tx.db, project, run_ids):
        local.forget(tx, project, run_id)
    tx.outdated.add(project)
    for table in ("change_records", "local_files"):
        tx.db.run(
            f"DELETE FROM store.{table} WHERE {_HERE} AND run_id IN (SELECT unnest(?::VARCHAR[]))",
            [project.entity, project.project, list(run_ids)],
        )


def project(tx: Transaction, key: ProjectKey) -> None:
    """Remove a project with all of its runs, if it is mirrored.

    Its segments are retired: they are deleted when no reader can have them open any more. The wide relation of a
    project whose name differs only in case may get another name.
    """
    db = tx.db
    number = projects.find(db, key)
    if number is None:
        return
    here = [key.entity, key.project]
    contents.forget(tx, [rid for (rid,) in db.run(f"SELECT rid FROM store.run_records WHERE {_HERE}", here)])
    aids = [aid for (aid,) in db.run(f"SELECT aid FROM store.artifact_records WHERE {_HERE}", here)]
    contents.forget(tx, aids, contents.ARTIFACT)
    artifacts.forget(tx, key)
    for table in _OF_RUNS:
        db.run(f"DELETE FROM store.{table} WHERE rid IN (SELECT rid FROM store.run_records WHERE {_HERE})", here)
    for table in ("system_values", "change_records", "local_files", "run_records"):
        db.run(f"DELETE FROM store.{table} WHERE {_HERE}", here)
    for beside in (sweeps, reports, listings):
        beside.forget(db, key)
    now = datetime.now(UTC).replace(tzinfo=None)
    db.run(f"UPDATE store.segments SET retired_at = ? WHERE {_HERE} AND retired_at IS NULL", [now, *here])
    _drop_relation(db, key, number)
    db.run("DELETE FROM store.leaf_keys WHERE project_number = ?", [number])
    db.run(f"DELETE FROM store.project_records WHERE {_HERE}", here)
    for cached in (db.cached.rids, db.cached.numbers, db.cached.app_urls):
        cached.pop(key, None)
    tx.outdated |= {other for other in projects.everything(db) if folded(str(other)) == folded(str(key))}
    tx.views_outdated = True


def _drop_relation(db: Database, key: ProjectKey, number: int) -> None:
    """Drop the wide relation, with everything that is recorded under its number: a new project may get that number."""
    name = wide_names.view_name(db, key)
    if db.run("SELECT 1 FROM duckdb_views() WHERE schema_name = 'main' AND view_name = ?", [name]):
        db.run(f"DROP VIEW main.{identifier(name)}")
    wide.forget(db, number)
    table_views.forget(db, number)
    meta.forget(db, [f"name of store.wide_{number}", f"{wide.FAULT}{number}"])
