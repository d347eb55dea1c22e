"""Projects: their numbers, their cursors, and the outcome of their passes."""

from __future__ import annotations

from datetime import datetime

from mirror.store import listings
from mirror.store.database import Database
from mirror.store.records import ProjectCursor, ProjectKey, ProjectStatus
from mirror.store.transaction import Transaction

_HERE = "WHERE entity = ? AND project = ?"

CURSOR = f"SELECT covered_to, reconciled_at, unexplained_runs, filters, history FROM store.project_records {_HERE}"
"""The fields of ProjectCursor."""


def find(db: Database, project: ProjectKey) -> int | None:
    """This mirror's number for the project; None if the project is not in the store."""
    numbers = db.cached.numbers
    if project not in numbers:
        found = db.run(f"SELECT number FROM store.project_records {_HERE}", [project.entity, project.project])
        if not found:
            return None
        numbers[project] = int(found[0][0])
    return numbers[project]


def add(tx: Transaction, project: ProjectKey) -> int:
    """Register the project if it is new, even if it has no runs yet. Returns this mirror's number for it."""
    known = find(tx.db, project)
    if known is not None:
        return known
    number = int(tx.db.value("SELECT coalesce(max(number), 0) + 1 FROM store.project_records"))
    tx.db.run(
        "INSERT INTO store.project_records (number, entity, project) VALUES (?, ?, ?)",
        [number, project.entity, project.project],
    )
    tx.outdated.add(project)
    return number


def everything(db: Database) -> list[ProjectKey]:
    """All projects of the store, by name."""
    return [
        ProjectKey(*row) for row in db.run("SELECT entity, project FROM store.project_records ORDER BY entity, project")
    ]


def numbers(db: Database) -> dict[ProjectKey, int]:
    """This mirror's number for each project of the store."""
    rows = db.run("SELECT entity, project, number FROM store.project_records ORDER BY number")
    return {ProjectKey(entity, project): number for entity, project, number in rows}


def cursor(db: Database, project: ProjectKey) -> ProjectCursor:
    """How far the project is mirrored. A project that is not in the store has an empty cursor."""
    found = db.run(CURSOR, [project.entity, project.project])
    return ProjectCursor(*found[0]) if found else ProjectCursor()


def set_cursor(tx: Transaction, project: ProjectKey, cursor: ProjectCursor) -> None:
    """Record how far the project is mirrored now."""
    add(tx, project)
    values = [cursor.covered_to, cursor.reconciled_at, cursor.unexplained_runs, cursor.filters, cursor.history]
    tx.db.run(
        "UPDATE store.project_records "
        f"SET covered_to = ?, reconciled_at = ?, unexplained_runs = ?, filters = ?, history = ? {_HERE}",
        [*values, project.entity, project.project],
    )


def pull_again(tx: Transaction, project: ProjectKey) -> None:
    """Have the next pass list everything of the project: its runs, its sweeps and its reports."""
    set_cursor(tx, project, ProjectCursor())
    listings.forget(tx.db, project)


def record_attempt(tx: Transaction, project: ProjectKey, at: datetime) -> None:
    """Record that a pass started."""
    add(tx, project)
    tx.db.run(f"UPDATE store.project_records SET last_attempt_at = ? {_HERE}", [at, project.entity, project.project])


def record_success(tx: Transaction, project: ProjectKey, at: datetime) -> None:
    """Record that a pass succeeded, and forget the last error."""
    add(tx, project)
    tx.db.run(
        f"UPDATE store.project_records SET last_attempt_at = ?, last_success_at = ?, last_error = NULL {_HERE}",
        [at, at, project.entity, project.project],
    )


def record_failure(tx: Transaction, project: ProjectKey, error: str, at: datetime) -> None:
    """Record that a pass failed, and why. The time of the last success stays."""
    add(tx, project)
    tx.db.run(
        f"UPDATE store.project_records SET last_attempt_at = ?, last_error = ? {_HERE}",
        [at, error, project.entity, project.project],
    )


def status(db: Database) -> list[ProjectStatus]:
    """The status of each project. Runs that were deleted on the server are not counted."""
    rows = db.run(
        """
        SELECT p.entity, p.project, count(r.rid), count(r.rid) FILTER (WHERE r.state = 'running'),
               coalesce(sum(h.rows), 0)::BIGINT, p.last_attempt_at, p.last_success_at, p.last_error,
               count(r.rid) FILTER (WHERE h.error IS NOT NULL)
        FROM store.project_records AS p
        LEFT JOIN store.run_records AS r ON r.entity = p.entity AND r.project = p.project AND r.deleted_at IS NULL
        LEFT JOIN store.run_history AS h ON h.rid = r.rid
        GROUP BY ALL ORDER BY p.entity, p.project
        """
    )
    return [ProjectStatus(*row) for row in rows]
