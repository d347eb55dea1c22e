"""The identity of a mirror's files, so that none replaces a file of another mirror, or a newer one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
from msgspec import Struct

from mirror.errors import StoreBusy, StoreError
from mirror.store import files, meta
from mirror.store.database import Database, has, opening_error


class Identity(Struct, frozen=True):
    """The mirror that a file belongs to; `generation` counts how often it was published.

    A file from before identities existed has `mirror` None. `born` is when the mirror was created, to the microsecond.
    """

    mirror: str | None
    born: datetime
    generation: int

    def same_mirror(self, other: Identity) -> bool:
        """Return True if both files belong to one mirror."""
        if self.mirror is None or other.mirror is None:
            return self.born == other.born
        return self.mirror == other.mirror


def of(run: Callable[[str], list[Any]]) -> Identity | None:
    """The identity of a database, read with `run`, which runs one statement. None if it has no tables of a mirror."""
    if not has(run, "migrations"):
        return None
    born = run("SELECT applied_at FROM store.migrations WHERE number = 1")
    if not born:
        return None
    values = dict(run("SELECT key, value FROM store.meta WHERE key IN ('mirror', 'generation')"))
    return Identity(values.get("mirror"), born[0][0], int(values.get("generation", 0)))


def count_up(db: Database) -> None:
    """Count one more publication, in the transaction at the start of publishing."""
    meta.put(db, "generation", str(int(meta.get(db, "generation") or 0) + 1))


def read(path: Path) -> Identity | None:
    """The identity of a published file; None if it has no tables of a mirror.

    Raises StoreDamaged, or StoreError if it cannot be read for another reason.
    """
    try:
        with _second_name(path, copied=False) as name:
            return look(name, path)
    except StoreBusy:
        # A client has it open for writing.
        with _second_name(path, copied=True) as name:
            return look(name, path)


def look(path: Path, shown: Path | None = None) -> Identity | None:
    """Like `read`, for a process that does not have the file open. Raises StoreBusy if a client is writing to it.

    An error names the path `shown` instead, if given.
    """
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            return of(lambda sql: connection.execute(sql).fetchall())
    except duckdb.Error as error:
        raise opening_error(shown or path, error) from error


@contextmanager
def _second_name(path: Path, *, copied: bool) -> Iterator[Path]:
    """Give the file a temporary second name. By the first, DuckDB may return an old version that is still open."""
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
                # Some file systems have no hard links.
                files.copy(path, name)
        yield name
    finally:
        name.unlink(missing_ok=True)


def check_may_replace(state: Path, state_id: Identity, published: Path, published_id: Identity | None) -> None:
    """Raise StoreError if the published file belongs to another mirror than the state, or is newer than it."""
    choice = (
        f"to continue from {published.name}, move {state.name} away; to continue from {state.name}, move "
        f"{published.name} away; nothing was changed"
    )
    if published_id is None or not state_id.same_mirror(published_id):
        raise StoreError(f"{published} was not published from {state}, but from another mirror: {choice}")
    if state_id.generation < published_id.generation:
        raise StoreError(
            f"{state} is older than {published} (published {state_id.generation} and {published_id.generation} times), "
            f"as a restored backup is: {choice}"
        )
