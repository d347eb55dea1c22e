"""Lists of what belongs to a project, such as sweeps: their tables, when they were pulled, and how that failed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from mirror.store import columns
from mirror.store.database import Database
from mirror.store.records import ProjectKey, ProjectListing
from mirror.store.transaction import Transaction

_HERE = "entity = ? AND project = ? AND kind = ?"
_OF_PROJECT = "entity = ? AND project = ?"


class Listed(Struct, frozen=True):
    """A table of what belongs to a project: its name in `store`, the column of the id, and its columns with types."""

    table: str
    id: str
    shape: dict[str, str]

    def keep(self, tx: Transaction, project: ProjectKey, records: Sequence[Any]) -> None:
        """Insert these records, or replace what is stored of them. The fields of a record are the columns."""
        here = [project.entity, project.project]
        ids = [getattr(record, self.id) for record in records]
        chosen = f"{self.id} IN (SELECT unnest(?::VARCHAR[]))"
        tx.db.run(f"DELETE FROM store.{self.table} WHERE {_OF_PROJECT} AND {chosen}", [*here, ids])
        rows = [tuple(getattr(record, name) for name in self.shape) for record in records]
        insert = f"INSERT INTO store.{self.table} BY NAME SELECT ? AS entity, ? AS project, * FROM new_records"
        with tx.db.table("new_records", columns.table(self.shape, rows)):
            tx.db.run(insert, here)

    def mark_deleted(self, tx: Transaction, project: ProjectKey, listed: Collection[str], *, at: datetime) -> None:
        """Set `deleted_at` of the project's records that are not `listed`."""
        tx.db.run(
            f"UPDATE store.{self.table} SET deleted_at = ? WHERE {_OF_PROJECT} AND deleted_at IS NULL "
            f"AND {self.id} NOT IN (SELECT unnest(?::VARCHAR[]))",
            [at, project.entity, project.project, list(listed)],
        )

    def forget(self, db: Database, project: ProjectKey) -> None:
        """Remove the records of a project."""
        db.run(f"DELETE FROM store.{self.table} WHERE {_OF_PROJECT}", [project.entity, project.project])


def find(db: Database, project: ProjectKey, kind: str) -> ProjectListing:
    """What is stored about a list; an empty one if it was never pulled."""
    found = db.run(
        f"SELECT listed_at, total, attempts, next_try_at FROM store.listings WHERE {_HERE}",
        [project.entity, project.project, kind],
    )
    return ProjectListing(*found[0]) if found else ProjectListing()


def record(tx: Transaction, project: ProjectKey, kind: str, *, at: datetime, total: int | None = None) -> None:
    """Record that a list was pulled; `total` is the server's count, if the list did not explain it."""
    _replace(tx, project, kind, ProjectListing(at, total), None)


def record_failure(tx: Transaction, project: ProjectKey, kind: str, error: str, *, next_try_at: datetime) -> None:
    """Record that a list could not be pulled, and when that is tried again."""
    before = find(tx.db, project, kind)
    attempts = before.attempts + 1
    _replace(tx, project, kind, ProjectListing(before.listed_at, before.total, attempts, next_try_at), error)


def _replace(tx: Transaction, project: ProjectKey, kind: str, listing: ProjectListing, error: str | None) -> None:
    here = [project.entity, project.project, kind]
    tx.db.run(f"DELETE FROM store.listings WHERE {_HERE}", here)
    tx.db.run(
        "INSERT INTO store.listings (entity, project, kind, listed_at, total, attempts, next_try_at, error) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [*here, listing.listed_at, listing.total, listing.attempts, listing.next_try_at, error],
    )


def forget(db: Database, project: ProjectKey) -> None:
    """Have the project's lists pulled again by the next pass."""
    db.run("DELETE FROM store.listings WHERE entity = ? AND project = ?", [project.entity, project.project])
