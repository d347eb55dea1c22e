"""The files of segments and their records: creating, registering, deleting, and the folders that they are stored in.

A segment has values of one project, sorted by key, run and step, in `entity=<entity>/project=<project>/`, the layout
of Hive partitions. A file is never changed.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mirror.errors import StoreError
from mirror.store import columns, files
from mirror.store.database import Database, has
from mirror.store.names import literal, pattern
from mirror.store.records import ProjectKey

_JOURNAL = ".placed"
"""Lists the segments written since the last commit. Those that no commit registered are deleted."""

_NAME_BYTES = 255
"""The longest possible folder name, in bytes."""


def create(db: Database, folder: Path, key: ProjectKey, level: int, write: Callable[[Path], None]) -> str:
    """Create a segment durably under its final name; `write` writes the file at the path that it is given.

    Returns the path within the folder. No reader sees the segment until it is registered, and the next start deletes it
    if it never is.
    """
    sequence = db.value("SELECT coalesce(max(segment_id), 0) + 1 FROM store.segments")
    path = f"{partition(key)}/{level}-{sequence:08d}-{uuid.uuid4().hex}.parquet"
    target = folder / path
    temporary = target.with_suffix(".part")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / _JOURNAL).open("a", encoding="utf-8") as journal:
        journal.write(f"{path}\n")
    try:
        write(temporary)
        files.sync_file(temporary)
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)
    for parent in (target.parent, target.parent.parent, folder):
        files.sync_folder(parent)
    return path


def copy_from(
    db: Database,
    folder: Path,
    key: ProjectKey,
    level: int,
    query: str,
    params: Sequence[object],
    *,
    order: str = "key, run_id, step",
) -> str:
    """Create a segment with the rows of a query (run_id, key, step, value, text). Returns its path within the folder.

    `order` must be equivalent to the order by key, run and step.
    """
    return create(db, folder, key, level, lambda target: copy(db, target, query, params, order))


def copy(
    db: Database, target: Path, query: str, params: Sequence[object] = (), order: str = "key, run_id, step"
) -> None:
    """Write the rows of a query to a Parquet file; the parameters are those of `copy_from`."""
    db.run(
        f"COPY (SELECT run_id, key, step, value, text FROM ({query}) ORDER BY {order}) TO {literal(target)} "
        "(FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)",
        params,
    )


def register(
    db: Database,
    folder: Path,
    key: ProjectKey,
    path: str,
    level: int,
    counts: Mapping[str, int],
    *,
    replaced: bool = False,
) -> int:
    """Register a new segment in the open transaction, with its number of values per run. Returns its number.

    If it is registered as `replaced`, no view shows its values. The caller must recreate the views. Raises StoreError
    if the file has another number of values.
    """
    segment_id, count = add(db, folder, key, path, level)
    check_count(path, count, sum(counts.values()))
    shape = {"segment_id": "BIGINT", "run_id": "VARCHAR", "value_count": "BIGINT", "replaced": "BOOLEAN"}
    rows = [(segment_id, run_id, values, replaced) for run_id, values in sorted(counts.items())]
    with db.table("listed", columns.table(shape, rows)):
        db.run("INSERT INTO store.segment_runs SELECT * FROM listed")
    return segment_id


def add(db: Database, folder: Path, key: ProjectKey, path: str, level: int) -> tuple[int, int]:
    """Insert the record of a segment in use. Returns its number, and how many values it has."""
    segment_id = int(db.value("SELECT coalesce(max(segment_id), 0) + 1 FROM store.segments"))
    count = int(db.value(f"SELECT count(*) FROM read_parquet([{pattern(folder / path)}], hive_partitioning = false)"))
    now = datetime.now(UTC).replace(tzinfo=None)
    size = (folder / path).stat().st_size
    db.run(
        "INSERT INTO store.segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)",
        [segment_id, path, key.entity, key.project, level, count, size, now, files.digest(folder / path)],
    )
    return segment_id, count


def check_count(path: str, written: int, expected: int) -> None:
    """Raise StoreError if a segment holds another number of values than were to be written to it."""
    if written != expected:
        raise StoreError(f"the segment {path} holds {written} values instead of {expected}; it is not used, try again")


def delete_retired(db: Database, folder: Path, grace: timedelta) -> int:
    """Delete segments that were retired more than `grace` ago, with their records. Returns how many.

    Call it only when the published file does not list them any more; readers of older files had the grace period.
    """
    before = datetime.now(UTC).replace(tzinfo=None) - grace
    old = db.run("SELECT segment_id, path FROM store.segments WHERE retired_at <= ?", [before])
    if old:
        for _, path in old:
            (folder / path).unlink(missing_ok=True)
        with db.transaction():
            ids = [segment_id for segment_id, _ in old]
            for table in ("segment_runs", "segments"):
                db.run(f"DELETE FROM store.{table} WHERE segment_id IN (SELECT unnest(?::BIGINT[]))", [ids])
    return len(old)


def delete_uncommitted(db: Database, folder: Path) -> None:
    """Delete the segments that were created since the last call but registered by no committed transaction.

    Other unregistered files stay: they may belong to a newer state or to another mirror.
    """
    journal = folder / _JOURNAL
    try:
        created = journal.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return
    listed = db.run("SELECT path FROM store.segments WHERE path IN (SELECT unnest(?::VARCHAR[]))", [created])
    for path in set(created) - {path for (path,) in listed}:
        (folder / path).unlink(missing_ok=True)
    journal.unlink()


def delete_leftovers(db: Database, folder: Path) -> None:
    """Delete what a killed process left in the segments folder: unfinished files, and files that were not committed."""
    delete_uncommitted(db, folder)
    for part in folder.glob("entity=*/project=*/*.part"):
        part.unlink(missing_ok=True)


def sizes(db: Database) -> list[tuple[str, int]]:
    """The path and the size in bytes of each segment in use, by path."""
    return db.run("SELECT path, bytes FROM store.segments WHERE retired_at IS NULL ORDER BY path")


def unlisted(db: Database, folder: Path) -> list[str]:
    """The segments in the folder that the database does not list."""
    listed = {path for (path,) in db.run("SELECT path FROM store.segments")}
    return sorted({str(file.relative_to(folder)) for file in folder.glob("entity=*/project=*/*.parquet")} - listed)


def digests(run: Callable[[str], list[Any]]) -> dict[str, str]:
    """The recorded digests of segments, by path, read with `run`, which runs one statement.

    Segments written before digests were recorded are missing. Empty for a file that an older version published.
    """
    if not has(run, "segments", "digest"):
        return {}
    return dict(run("SELECT path, digest FROM store.segments WHERE digest IS NOT NULL"))


def partition(key: ProjectKey) -> str:
    """The folders of a project, with names in the style of Hive."""
    return f"entity={_encoded(key.entity)}/project={_encoded(key.project)}"


def fits(key: ProjectKey) -> bool:
    """Return True if the project's name is short enough for a folder."""
    return all(len(part.encode()) <= _NAME_BYTES for part in partition(key).split("/"))


def _encoded(name: str) -> str:
    """The name as Hive writes it in a folder's name: characters with a meaning in paths or globs become %XX.

    So does the first letter of names that would be read as NULL.
    """
    special = r"[\x00-\x1f\x7f\"#%&'*+/:<=>?\[\\\]^{|}]|^n(?=ull$)|^_(?=_hive_default_partition__$)"
    return re.sub(special, lambda found: f"%{ord(found[0]):02X}", name, flags=re.IGNORECASE)
