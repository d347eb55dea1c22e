"""The snapshot for readers: a copy of the state file, put in place of the former one at once."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import duckdb

from mirror.errors import StoreError
from mirror.store import files
from mirror.store.blocks import HEADERS, Watch
from mirror.store.database import Database, log_file, scan


def publish(db: Database, state: int, target: Path) -> int:
    """Replace `target` by a copy of the state file, open as descriptor `state`; the number of bytes.

    Readers see the former file or the new one, whole; those that have the former open keep it. Only the thread that
    writes may call this: a copy taken during a checkpoint is damaged. Raises OSError or duckdb.Error, with the former
    file still in place.
    """
    db.checkpoint()
    temporary = target.with_name(f".{target.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    watch = Watch(target)
    try:
        size = files.copy_from(state, temporary, first=HEADERS, see=watch.see)
        _verify(db, temporary, whole=watch.doubtful)
        temporary.chmod(0o444)
        # A log that a careless client left there would be replayed into the new file, or make it unreadable.
        log_file(target).unlink(missing_ok=True)
        temporary.replace(target)
    finally:
        watch.close()
        temporary.unlink(missing_ok=True)
        log_file(temporary).unlink(missing_ok=True)
    files.sync_folder(target.parent)
    return size


def delete_leftovers(target: Path) -> None:
    """Delete the copies that a killed process left beside the published file."""
    for leftover in target.parent.glob(f".{target.name}-*.part*"):
        leftover.unlink(missing_ok=True)


def seen(target: Path) -> tuple[int, int, int] | None:
    """What tells a published file from the next one, and from one that was changed since; None where there is none."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _verify(db: Database, copy: Path, *, whole: bool) -> None:
    """Open the copy as a reader does and hold it against the store; with `whole`, read all of it."""
    count = "SELECT (SELECT count(*) FROM store.runs), (SELECT count(*) FROM store.history_tail)"
    with duckdb.connect(str(copy), read_only=True) as reader:
        found = reader.execute(count).fetchall()
        if whole:
            scan(reader, reader.execute("SELECT current_database()").fetchall()[0][0])
    if found != db.run(count):
        raise StoreError(f"the copy for readers does not equal {db.path}; readers keep the former one, try again")
