"""The snapshot for readers: a copy of the state file, put in place of the former one at once."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import duckdb

from mirror.errors import StoreError
from mirror.store import files
from mirror.store.database import Database, log_file

_HEADERS = 3 * 4096
"""DuckDB's own headers, which every checkpoint changes."""


def publish(db: Database, state: int, target: Path) -> int:
    """Replace `target` by a copy of the state file, open as descriptor `state`; the number of bytes.

    Readers see the former file or the new one, whole; those that have the former open keep it. Only the thread that
    writes may call this: a copy taken during a checkpoint is damaged. Raises OSError or duckdb.Error, with the former
    file still in place.
    """
    db.checkpoint()
    temporary = target.with_name(f".{target.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        size = files.copy_from(state, temporary)
        _verify(db, temporary)
        temporary.chmod(0o444)
        # A log that a careless client left there would be replayed into the new file, or make it unreadable.
        log_file(target).unlink(missing_ok=True)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
        log_file(temporary).unlink(missing_ok=True)
    files.sync_folder(target.parent)
    return size


def delete_leftovers(target: Path) -> None:
    """Delete the copies that a killed process left beside the published file."""
    for leftover in target.parent.glob(f".{target.name}-*.part*"):
        leftover.unlink(missing_ok=True)


def is_current(state: int, target: Path) -> bool:
    """Whether the published file is a copy of the state file, open as descriptor `state`, as it was checkpointed last.

    What is in the log of the state file is left out of account.
    """
    try:
        if os.fstat(state).st_size != target.stat().st_size:
            return False
        with target.open("rb") as published:
            return published.read(_HEADERS) == os.pread(state, _HEADERS, 0)
    except FileNotFoundError:
        return False


def _verify(db: Database, copy: Path) -> None:
    """Open the copy as a reader does and hold it against the store."""
    count = "SELECT (SELECT count(*) FROM store.runs), (SELECT count(*) FROM store.history_tail)"
    with duckdb.connect(str(copy), read_only=True) as reader:
        found = reader.execute(count).fetchall()
    if found != db.run(count):
        raise StoreError(f"the copy for readers does not equal {db.path}; readers keep the former one, try again")
