"""History outside of the state file: immutable Parquet segments, merged by levels and deleted after a grace period.

A segment has values of one project, sorted by key, run and step, in `entity=<entity>/project=<project>/`, the layout
of Hive partitions. A file is never changed: a merge writes a new file and retires its sources.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mirror.errors import StoreError
from mirror.store import columns, files, segment_merge, views
from mirror.store.database import Database
from mirror.store.names import literal, pattern
from mirror.store.records import ProjectKey
from mirror.store.segment_merge import Source, Unsuitable

logger = logging.getLogger(__name__)

MERGE = 64
"""When a level has this many segments, the first of them are merged to one of the next level."""

AT_ONCE = 32
"""How many segments are merged at a time. This bounds the memory of a merge."""

MOST_VALUES = 50_000_000
"""The largest number of values in a merged segment."""

REPLACED_SHARE = 0.25
"""A segment is rewritten once this share of it belongs to replaced runs."""

KEPT_SHARE = 0.25
"""Projects are sealed, the largest first, until the tail is down to this share of its limit."""

# A project's tail with the ranks of its keys and runs: sorting numbers takes two thirds of the time of sorting text.
_RANKED = """
    SELECT r.run_id, t.key, t.step, t.value, t.text, k.rank AS key_rank, r.rank AS run_rank
    FROM store.history_tail AS t
    JOIN (
        SELECT rid, run_id, CAST(row_number() OVER (ORDER BY run_id) AS INTEGER) AS rank
        FROM store.run_records WHERE entity = ? AND project = ?
    ) AS r ON r.rid = t.rid
    JOIN (
        SELECT key, CAST(row_number() OVER (ORDER BY key) AS INTEGER) AS rank
        FROM (SELECT DISTINCT key FROM store.history_tail)
    ) AS k ON k.key = t.key
"""

_JOURNAL = ".placed"
"""Lists the segments written since the last commit. Those that no commit registered are deleted."""

_NAME_BYTES = 255
"""The longest possible folder name, in bytes."""


@dataclass(frozen=True)
class _Segment:
    segment_id: int
    path: str
    level: int
    value_count: int
    replaced: int

    @property
    def left(self) -> int:
        """Values that a merge would keep."""
        return self.value_count - self.replaced


def seal(db: Database, folder: Path, tail_values: int) -> bool:
    """Move the tail to segments if it has more than `tail_values` values. Returns True if anything was moved.

    The largest projects are moved first; small ones stay in the tail, and so do projects whose name is too long for a
    folder.
    """
    left = db.value("SELECT count(*) FROM store.history_tail")
    if left <= tail_values:
        return False
    held = db.run(
        "SELECT r.entity, r.project, count(*) FROM store.history_tail AS t "
        "JOIN store.run_records AS r ON r.rid = t.rid GROUP BY ALL ORDER BY 3 DESC, 1, 2"
    )
    moved = False
    for entity, project, count in held:
        if left <= tail_values * KEPT_SHARE:
            break
        key = ProjectKey(entity, project)
        if fits(key):
            _seal_project(db, folder, key)
            left -= count
            moved = True
    return moved


def tend(db: Database, folder: Path) -> bool:
    """Merge levels that are full, and rewrite segments with many replaced values. Returns True if any changed."""
    changed = False
    for key in [ProjectKey(*row) for row in db.run("SELECT DISTINCT entity, project FROM store.segments ORDER BY ALL")]:
        while (sources := _due(_live(db, key))) is not None:
            _merge(db, folder, key, sources)
            changed = True
    return changed


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
    if not run(
        "SELECT 1 FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = 'store' "
        "AND table_name = 'segments' AND column_name = 'digest'"
    ):
        return {}
    return dict(run("SELECT path, digest FROM store.segments WHERE digest IS NOT NULL"))


def _seal_project(db: Database, folder: Path, key: ProjectKey) -> None:
    here = [key.entity, key.project]
    source = "store.history_tail AS t JOIN store.run_records AS r ON r.rid = t.rid WHERE r.entity = ? AND r.project = ?"
    path = copy_from(db, folder, key, 0, _RANKED, here, order="key_rank, run_rank, step")
    with db.transaction():
        segment_id, count = _add(db, folder, key, path, 0)
        db.run(
            f"INSERT INTO store.segment_runs SELECT ?, r.run_id, count(*), false FROM {source} GROUP BY ALL ORDER BY 2",
            [segment_id, *here],
        )
        moved = (
            "DELETE FROM store.history_tail "
            "WHERE rid IN (SELECT rid FROM store.run_records WHERE entity = ? AND project = ?)"
        )
        _check_count(path, count, db.value(moved, here))
        views.recreate(db, folder)


def _live(db: Database, key: ProjectKey) -> list[_Segment]:
    rows = db.run(
        "SELECT s.segment_id, s.path, s.level, s.value_count, "
        "coalesce(sum(g.value_count) FILTER (WHERE g.replaced), 0)::BIGINT "
        "FROM store.segments AS s LEFT JOIN store.segment_runs AS g ON g.segment_id = s.segment_id "
        "WHERE s.entity = ? AND s.project = ? AND s.retired_at IS NULL "
        # Staged values are marked as replaced, and must stay.
        "AND s.segment_id NOT IN (SELECT segment_id FROM store.staged_segments) "
        "GROUP BY s.segment_id, s.path, s.level, s.value_count ORDER BY s.segment_id",
        [key.entity, key.project],
    )
    return [_Segment(*row) for row in rows]


def _due(segments: Sequence[_Segment]) -> list[_Segment] | None:
    """The segments that should be merged to one, possibly a single one to rewrite. None if there is nothing to do."""
    if nothing_left := [segment for segment in segments if not segment.left]:
        return nothing_left
    for level in sorted({segment.level for segment in segments}):
        same = [segment for segment in segments if segment.level == level]
        if len(same) >= MERGE and len(some := _fitting(same[:AT_ONCE])) > 1:
            return some
    return next(([s] for s in segments if s.replaced and s.replaced >= s.value_count * REPLACED_SHARE), None)


def _fitting(segments: Sequence[_Segment]) -> list[_Segment]:
    """The first segments, as many as fit into one."""
    total = 0
    for position, segment in enumerate(segments):
        total += segment.left
        if total > MOST_VALUES:
            return list(segments[:position])
    return list(segments)


def check(db: Database, folder: Path, paths: Iterable[str]) -> None:
    """Compare segments with their digests before their values are copied, since a copy of damage gets a valid digest.

    Raises StoreError for the first damaged segment.
    """
    noted = digests(db.run)
    for path in paths:
        if path in noted and files.digest(folder / path) != noted[path]:
            raise StoreError(f"{folder / path} is damaged and is not copied; run `mirror verify --repair`")


def check_run(db: Database, folder: Path, project: ProjectKey, run_id: str) -> None:
    """Like `check`, for all segments that have values of a run."""
    found = db.run(
        "SELECT path FROM store.segments JOIN store.segment_runs AS g USING (segment_id) "
        "WHERE entity = ? AND project = ? AND g.run_id = ? AND NOT g.replaced AND retired_at IS NULL",
        [project.entity, project.project, run_id],
    )
    check(db, folder, [path for (path,) in found])


def _merge(db: Database, folder: Path, key: ProjectKey, sources: Sequence[_Segment]) -> None:
    """Merge the sources to one segment without values of replaced runs, or to none if no value is left."""
    level = sources[0].level + (len(sources) > 1)
    ids = [source.segment_id for source in sources]
    left = sum(source.left for source in sources)
    check(db, folder, [source.path for source in sources] if left else [])
    path = create(db, folder, key, level, lambda target: _merge_to(db, folder, target, sources)) if left else None
    with db.transaction():
        if path:
            segment_id, count = _add(db, folder, key, path, level)
            _check_count(path, count, left)
            db.run(
                "INSERT INTO store.segment_runs SELECT ?, run_id, sum(value_count)::BIGINT, false "
                "FROM store.segment_runs WHERE NOT replaced AND segment_id IN (SELECT unnest(?::BIGINT[])) "
                "GROUP BY run_id ORDER BY run_id",
                [segment_id, ids],
            )
        db.run(
            "UPDATE store.segments SET retired_at = ? WHERE segment_id IN (SELECT unnest(?::BIGINT[]))",
            [datetime.now(UTC).replace(tzinfo=None), ids],
        )
        views.recreate(db, folder)


def _merge_to(db: Database, folder: Path, target: Path, sources: Sequence[_Segment]) -> None:
    without: dict[int, set[str]] = {}
    for segment_id, run_id in db.run(
        "SELECT segment_id, run_id FROM store.segment_runs "
        "WHERE replaced AND segment_id IN (SELECT unnest(?::BIGINT[]))",
        [[source.segment_id for source in sources]],
    ):
        without.setdefault(segment_id, set()).add(run_id)
    try:
        segment_merge.merge(target, [Source(folder / one.path, without.get(one.segment_id, ())) for one in sources])
    except Unsuitable:
        listed = ", ".join(pattern(folder / source.path) for source in sources)
        kept = f"""
            SELECT p.run_id, p.key, p.step, p.value, p.text
            FROM read_parquet([{listed}], hive_partitioning = false, filename = true) AS p
            {views.without_replaced(folder) if without else ""}
        """
        _copy(db, target, kept)


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
    return create(db, folder, key, level, lambda target: _copy(db, target, query, params, order))


def _copy(
    db: Database, target: Path, query: str, params: Sequence[object] = (), order: str = "key, run_id, step"
) -> None:
    db.run(
        f"COPY (SELECT run_id, key, step, value, text FROM ({query}) ORDER BY {order}) TO {literal(target)} "
        "(FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)",
        params,
    )


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
    segment_id, count = _add(db, folder, key, path, level)
    _check_count(path, count, sum(counts.values()))
    shape = {"segment_id": "BIGINT", "run_id": "VARCHAR", "value_count": "BIGINT", "replaced": "BOOLEAN"}
    rows = [(segment_id, run_id, values, replaced) for run_id, values in sorted(counts.items())]
    with db.table("listed", columns.table(shape, rows)):
        db.run("INSERT INTO store.segment_runs SELECT * FROM listed")
    return segment_id


def _add(db: Database, folder: Path, key: ProjectKey, path: str, level: int) -> tuple[int, int]:
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


def _check_count(path: str, written: int, expected: int) -> None:
    if written != expected:
        raise StoreError(f"the segment {path} holds {written} values instead of {expected}; it is not used, try again")


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
