"""Which mirror a file belongs to, and how new it is: no file takes the place of another mirror's, or of a newer one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from mirror.errors import StoreBusy, StoreError
from mirror.store import files
from mirror.store.database import Database, opening_error


@dataclass(frozen=True)
class Identity:
    """The mirror that a file belongs to; `generation` counts how often it was published.

    A file of before there were identities has `mirror` None; `born` is when it was made, to the microsecond.
    """

    mirror: str | None
    born: datetime
    generation: int

    def same_mirror(self, other: Identity) -> bool:
        """Whether both files are of one mirror."""
        if self.mirror is None or other.mirror is None:
            return self.born == other.born
        return self.mirror == other.mirror


def of(run: Callable[[str], list[Any]]) -> Identity | None:
    """The identity of the database that `run` runs a statement over; None for one without the tables of a mirror."""
    if not run(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'store' "
        "AND table_name = 'migrations'"
    ):
        return None
    born = run("SELECT applied_at FROM store.migrations WHERE number = 1")
    if not born:
        return None
    noted = dict(run("SELECT key, value FROM store.meta WHERE key IN ('mirror', 'generation')"))
    return Identity(noted.get("mirror"), born[0][0], int(noted.get("generation", 0)))


def count_up(db: Database) -> None:
    """Note that the store is published once more; in the transaction that the publishing begins with."""
    db.run("UPDATE store.meta SET value = CAST(CAST(value AS BIGINT) + 1 AS VARCHAR) WHERE key = 'generation'")


def read(path: Path) -> Identity | None:
    """The identity of a published file; None for one without the tables of a mirror.

    Raises StoreDamaged, or StoreError when it cannot be read for another reason.
    """
    try:
        with _named(path, copied=False) as name:
            return look(name)
    except StoreBusy:
        # A client has it open for writing.
        with _named(path, copied=True) as name:
            return look(name)


def look(path: Path) -> Identity | None:
    """As `read`, in a process that has no database open. Raises StoreBusy when a client has it open for writing."""
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            return of(lambda sql: connection.execute(sql).fetchall())
    except duckdb.Error as error:
        raise opening_error(path, error) from error


@contextmanager
def _named(path: Path, *, copied: bool) -> Iterator[Path]:
    """The file under a name of its own: to the same name DuckDB gives what this process has open, however old."""
    name = path.with_name(f".{path.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        if copied:
            files.copy(path, name)
        else:
            try:
                os.link(path, name)
            except FileNotFoundError:
                raise
            except OSError:
                # Not every file system has links.
                files.copy(path, name)
        yield name
    finally:
        name.unlink(missing_ok=True)


def refuse_stranger(state: Path, mine: Identity, published: Path, theirs: Identity | None) -> None:
    """Raise StoreError unless a state may take the place of a published file."""
    choice = (
        f"to go on from {published.name}, move {state.name} away, and to go on from {state.name}, move "
        f"{published.name} away; nothing was changed"
    )
    if theirs is None or not mine.same_mirror(theirs):
        raise StoreError(f"{published} was not published from {state}, but from another mirror: {choice}")
    if mine.generation < theirs.generation:
        raise StoreError(
            f"{state} is older than {published} (published {mine.generation} and {theirs.generation} times), as a "
            f"restored backup is: {choice}"
        )
