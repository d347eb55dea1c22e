"""Removes runs or a whole project from the mirror, with everything that is mirrored of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from mirror.store import local, projects, rids, staging, wide
from mirror.store.database import Database
from mirror.store.names import folded, identifier
from mirror.store.records import ProjectKey

_OF_RUNS = (
    *("history_tail", "history_keys", *staging.TABLES, "run_history", "local_runs", *local.EXTRAS),
    *("leaves", "run_tags"),
)
"""The tables that name a run by its rid, but store.runs itself."""

_HERE = "entity = ? AND project = ?"


def runs(db: Database, project: ProjectKey, run_ids: Sequence[str]) -> bool:
    """Remove those of these runs that are mirrored, with their changes and the record of their local files.

    Returns True if views must now leave out values in segments. Merges of segments free their bytes.
    """
    hidden = False
    for run_id in rids.find(db, project, run_ids):
        hidden |= local.forget(db, project, run_id)
    for table in ("run_changes", "local_files"):
        db.run(
            f"DELETE FROM store.{table} WHERE {_HERE} AND run_id IN (SELECT unnest(?::VARCHAR[]))",
            [project.entity, project.project, list(run_ids)],
        )
    return hidden


def project(db: Database, key: ProjectKey) -> set[ProjectKey]:
    """Remove a project with all of its runs, if it is mirrored. Recreate the views afterwards.

    Its segments are retired: they are deleted when no reader can have them open any more. Returns the projects whose
    wide relation may get another name now: those whose name differs only in case.
    """
    number = projects.find(db, key)
    if number is None:
        return set()
    here = [key.entity, key.project]
    for table in _OF_RUNS:
        db.run(f"DELETE FROM store.{table} WHERE rid IN (SELECT rid FROM store.runs WHERE {_HERE})", here)
    for table in ("system_metrics", "run_changes", "local_files", "runs"):
        db.run(f"DELETE FROM store.{table} WHERE {_HERE}", here)
    now = datetime.now(UTC).replace(tzinfo=None)
    db.run(f"UPDATE store.segments SET retired_at = ? WHERE {_HERE} AND retired_at IS NULL", [now, *here])
    _drop_relation(db, key, number)
    db.run("DELETE FROM store.leaf_keys WHERE project_number = ?", [number])
    db.run(f"DELETE FROM store.projects WHERE {_HERE}", here)
    db.rids.pop(key, None)
    db.app_urls.pop(key, None)
    return {other for other in projects.everything(db) if folded(str(other)) == folded(str(key))}


def _drop_relation(db: Database, key: ProjectKey, number: int) -> None:
    """Drop the wide relation, with everything that is recorded under its number: a new project may get that number."""
    name = wide.view_name(db, key)
    if db.run("SELECT 1 FROM duckdb_views() WHERE schema_name = 'main' AND view_name = ?", [name]):
        db.run(f"DROP VIEW main.{identifier(name)}")
    wide.forget(db, number)
    noted = [f"name of store.wide_{number}", f"{wide.FAULT}{number}"]
    db.run("DELETE FROM store.meta WHERE key IN (SELECT unnest(?::VARCHAR[]))", [noted])
