"""Migrates the schema of a state file to the version that this program needs."""

from __future__ import annotations

from datetime import UTC, datetime

from mirror.errors import StoreError
from mirror.store import sqlfiles
from mirror.store.database import Database


def migrate(db: Database) -> list[str]:
    """Apply the pending migrations, each in one transaction with its record. Returns their names.

    Raises StoreError, with the file unchanged, if a newer program wrote it.
    """
    names = pending(db)
    for name in names:
        with db.transaction():
            db.run("CREATE SCHEMA IF NOT EXISTS store")
            db.run("CREATE TABLE IF NOT EXISTS store.migrations (number BIGINT, name VARCHAR, applied_at TIMESTAMP)")
            db.run(sqlfiles.read("migrations")[name])
            now = datetime.now(UTC).replace(tzinfo=None)
            db.run("INSERT INTO store.migrations VALUES (?, ?, ?)", [int(name.split("_")[0]), name, now])
    return names


def pending(db: Database) -> list[str]:
    """The names of the migrations that this file lacks. Raises StoreError if a newer program wrote it."""
    done = applied(db)
    known = {int(name.split("_")[0]): name for name in sqlfiles.read("migrations")}
    if unknown := sorted(done - known.keys()):
        raise StoreError(
            f"{db.path} has schema version {unknown[-1]}, newer than the {max(known)} that this program knows; "
            "update wandb-mirror"
        )
    return [known[number] for number in sorted(known) if number not in done]


def applied(db: Database) -> set[int]:
    """The numbers of the migrations applied to this file; empty for a new file."""
    found = db.run(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'store' "
        "AND table_name = 'migrations'"
    )
    return {row[0] for row in db.run("SELECT number FROM store.migrations")} if found else set()
