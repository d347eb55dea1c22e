"""Rewrites the state file to shrink it: DuckDB reuses the space of deleted rows, but never returns it to the disk."""

from __future__ import annotations

from pathlib import Path

from mirror.errors import StoreError
from mirror.store import files, meta, sorting
from mirror.store.database import CATALOG, Database, log_file
from mirror.store.names import identifier, literal

FREE_SHARE = 0.4
"""A file is rewritten when more than this share of its blocks is free."""

_VERSION = "storage_version"
"""Key in `store.meta`: the format that the file is written in."""

SMALLEST = 16 << 20
"""Files below this size, in bytes, are not worth rewriting."""


def is_due(db: Database, storage_version: str) -> bool:
    """Return True if the file is mostly free space, or its format is not `storage_version`."""
    if (meta.get(db, _VERSION) or storage_version) != storage_version:
        return True
    if db.path.stat().st_size < SMALLEST:
        return False
    block, total, free = db.run(
        f"SELECT block_size, total_blocks, free_blocks FROM pragma_database_size() WHERE database_name = '{CATALOG}'"
    )[0]
    return bool(block * total >= SMALLEST and free > total * FREE_SHARE)


def note_version(db: Database, storage_version: str) -> None:
    """Record the format that the file is written in, if that is not recorded yet."""
    if meta.get(db, _VERSION) is None:
        meta.put(db, _VERSION, storage_version)


def compact(db: Database, storage_version: str) -> None:
    """Copy everything to a new file in the format `storage_version`, and replace the old file by it.

    The caller must reopen the file, since this connection still has the old one open. If this raises, the old file is
    still in place.
    """
    db.checkpoint()
    fresh = _leftover(db.path)
    delete_leftover(db.path)
    try:
        db.run(f"ATTACH {literal(fresh)} AS fresh (STORAGE_VERSION {literal(storage_version)})")
        try:
            db.run(f"COPY FROM DATABASE {CATALOG} TO fresh")
            # The copy renumbers rows without the gaps that deleted ones left.
            noted = {_VERSION: storage_version, sorting.SORTED_ROWS: str(sorting.sorted_left(db))}
            for key, value in noted.items():
                db.run("DELETE FROM fresh.store.meta WHERE key = ?", [key])
                db.run("INSERT INTO fresh.store.meta VALUES (?, ?)", [key, value])
            db.run("CHECKPOINT fresh")
            _verify(db)
        finally:
            db.run("DETACH fresh")
        fresh.chmod(0o600)
        files.sync_file(fresh)
        # The old file stays locked until after this, so no other process can write to the file that is replaced.
        fresh.replace(db.path)
        files.sync_folder(fresh.parent)
    finally:
        delete_leftover(db.path)


def delete_leftover(path: Path) -> None:
    """Delete the unfinished new file of a killed process."""
    fresh = _leftover(path)
    fresh.unlink(missing_ok=True)
    log_file(fresh).unlink(missing_ok=True)


def _leftover(path: Path) -> Path:
    return path.with_name(f".{path.name}.compact")


def _verify(db: Database) -> None:
    tables = db.run(
        f"SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = '{CATALOG}' AND NOT internal"
    )
    for schema, table in tables:
        name = f"{identifier(schema)}.{identifier(table)}"
        # The format and the order are recorded separately in the new file.
        condition = f"WHERE key NOT IN ('{_VERSION}', '{sorting.SORTED_ROWS}')" if table == "meta" else ""
        count = f"SELECT count(*) FROM {{}}.{name} {condition}"
        if db.value(count.format(CATALOG)) != db.value(count.format("fresh")):
            raise StoreError(
                f"{db.path} could not be compacted: {name} was not copied completely; the old file is unchanged"
            )
