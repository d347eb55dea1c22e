"""Migrates the schema of a state file to the version that this program needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from mirror.errors import StoreError
from mirror.store import sqlfiles
from mirror.store.database import Cached, Database, has

OLDEST_READABLE = 14
"""The first migration after which this program can read a published file: it has the tables by their present names."""


def apply(db: Database, names: Sequence[str]) -> None:
    """Apply these migrations, each in one transaction with its record, and those of a new file in one."""
    # A commit for each is a tenth of the time that creating a file takes.
    if len(names) == len(_known()):
        with db.on_one_thread():
            _apply(db, names)
    else:
        for name in names:
            _apply(db, [name])
    db.cached = Cached()


def _apply(db: Database, names: Sequence[str]) -> None:
    with db.transaction():
        db.run("CREATE SCHEMA IF NOT EXISTS store")
        db.run("CREATE TABLE IF NOT EXISTS store.migrations (number BIGINT, name VARCHAR, applied_at TIMESTAMP)")
        for name in names:
            db.run(sqlfiles.read("migrations")[name])
            now = datetime.now(UTC).replace(tzinfo=None)
            db.run("INSERT INTO store.migrations VALUES (?, ?, ?)", [int(name.split("_")[0]), name, now])


def pending(path: Path, done: Collection[int]) -> list[str]:
    """The names of the migrations that a file lacks to which these are applied.

    Raises StoreError if a newer program wrote it.
    """
    check_known(path, done)
    known = _known()
    return [known[number] for number in sorted(known) if number not in done]


def check_known(path: Path, done: Collection[int]) -> None:
    """Raise StoreError if a newer program wrote the file, to which these migrations are applied."""
    if unknown := sorted(set(done) - _known().keys()):
        raise newer(path, unknown[-1])


def newer(path: Path, version: int) -> StoreError:
    """Return the error for a file of a newer program."""
    return StoreError(
        f"{path} has schema version {version}, newer than the {max(_known())} that this program knows; "
        "update wandb-mirror"
    )


def latest() -> int:
    """The schema version of a file that has every migration that this program knows."""
    return max(_known())


def check_readable(path: Path, run: Callable[[str], list[Any]], catalog: str = "") -> None:
    """Raise StoreError if the tables of a published file have other names than this program reads.

    A file of a newer program is readable as long as its `readable_from` says so. `run` runs one statement, `catalog` is
    the name of the attached database with a dot, if it is not the current one.
    """
    try:
        found = run(f"SELECT value FROM {catalog}store.meta WHERE key = 'readable_from'")
    except duckdb.CatalogException:
        # Not a mirror at all; the statements that follow say what is missing.
        return
    since = int(found[0][0]) if found else 0
    if since > latest():
        raise newer(path, run(f"SELECT max(number) FROM {catalog}store.migrations")[0][0])
    if since < OLDEST_READABLE:
        raise StoreError(
            f"{path} was published by an older wandb-mirror: restart the daemon, or run `mirror sync` if none is "
            "running; either upgrades it"
        )


def _known() -> dict[int, str]:
    return {int(name.split("_")[0]): name for name in sqlfiles.read("migrations")}


def applied(run: Callable[[str], list[Any]]) -> set[int]:
    """The numbers of the migrations applied to a file; empty for a new file. `run` runs one statement."""
    if not has(run, "migrations"):
        return set()
    return {row[0] for row in run("SELECT number FROM store.migrations")}
