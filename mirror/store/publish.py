"""Publishes a snapshot for readers: a copy of the state file that atomically replaces the previous one."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path

from mirror.errors import StoreError
from mirror.store import files
from mirror.store.blocks import HEADERS, Comparison
from mirror.store.database import CATALOG, Database, log_file
from mirror.store.sharing import Sharing

_SPILLED_SECONDS = 24 * 3600
"""A reader's temporary files are deleted this long after it last made one."""


def publish(db: Database, state: int, target: Path, sharing: Sharing | None = None) -> int:
    """Replace `target` by a copy of the state file, open as descriptor `state`. Returns the number of bytes.

    Everyone who reaches the file may read it, or those that `sharing` names.

    Readers see either the previous or the new file completely; those that have the previous one open keep it. Call
    this only from the writing thread: a copy made during a checkpoint is damaged. Raises OSError or duckdb.Error, with
    the previous file still in place.
    """
    db.checkpoint()
    temporary = target.with_name(f".{target.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    comparison = Comparison(target)
    try:
        size = files.copy_from(state, temporary, first=HEADERS, on_piece=comparison.add)
        _verify(db, temporary, whole=comparison.suspicious)
        if sharing is None:
            temporary.chmod(0o444)
        else:
            sharing.put_on(temporary, sharing.file_mode)
        # A log left by a client that opened the file for writing would be replayed into the new file, or break it.
        log_file(target).unlink(missing_ok=True)
        temporary.replace(target)
    finally:
        comparison.close()
        temporary.unlink(missing_ok=True)
        log_file(temporary).unlink(missing_ok=True)
    files.sync_folder(target.parent)
    return size


def delete_leftovers(target: Path) -> None:
    """Delete what killed processes left next to the published file: unfinished copies, and what readers spilled."""
    for leftover in target.parent.glob(f".{target.name}-*.part*"):
        leftover.unlink(missing_ok=True)
    for spilled in target.parent.glob(f"{target.name}.tmp-*"):
        # A reader that has ended meanwhile deletes its folder itself.
        with suppress(FileNotFoundError):
            if time.time() - spilled.stat().st_mtime > _SPILLED_SECONDS:
                shutil.rmtree(spilled, ignore_errors=True)


def _verify(db: Database, copy: Path, *, whole: bool) -> None:
    """Open the copy as a second file and compare its counts with the store; with `whole`, read all of it."""
    count = "SELECT (SELECT count(*) FROM {0}.store.run_records), (SELECT count(*) FROM {0}.store.history_tail)"
    # An instance of DuckDB for a reader takes 20 ms, and attaching the file to the one that is there 1 ms.
    with db.attached(copy) as name:
        found = db.run(count.format(name))
        if whole:
            db.scan(name)
    if found != db.run(count.format(CATALOG)):
        raise StoreError(f"the copy for readers differs from {db.path}; readers keep the previous one, try again")
