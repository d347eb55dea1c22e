"""History that has left the state file: immutable Parquet files, merged by levels, retired with grace.

A segment holds values of one project, sorted by key, run and step, under `entity=<entity>/project=<project>/`, as
tools that know Hive partitions read it. A file is never changed: a merge writes another and retires its sources.
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
"""When so many segments of one level are there, the first of them become one of the next."""

AT_ONCE = 32
"""So many of them at a time; this bounds the memory of a merge."""

MOST_VALUES = 50_000_000
"""The most values that a merge puts into one segment."""

REPLACED_SHARE = 0.25
"""A segment is written anew once so much of it belongs to runs that were replaced."""

KEPT_SHARE = 0.25
"""Sealing goes on, from the largest project down, until the tail holds this share of its limit."""

# A project's tail with the places of its keys and runs in their order: numbers sort in two thirds of the time of texts.
_RANKED = """
    SELECT r.run_id, t.key, t.step, t.value, t.text, k.place AS key_place, r.place AS run_place
    FROM store.history_tail AS t
    JOIN (
        SELECT rid, run_id, CAST(row_number() OVER (ORDER BY run_id) AS INTEGER) AS place
        FROM store.runs WHERE entity = ? AND project = ?
    ) AS r ON r.rid = t.rid
    JOIN (
        SELECT key, CAST(row_number() OVER (ORDER BY key) AS INTEGER) AS place
        FROM (SELECT DISTINCT key FROM store.history_tail)
    ) AS k ON k.key = t.key
"""

_PLACED = ".placed"
"""Lists the segments that were written since the last commit: those of them that it does not list are deleted."""

_NAME_BYTES = 255
"""The longest name of a folder."""


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
    """Move the tail into segments when it holds more than `tail_values`; whether anything was moved.

    The largest projects go first, and small ones stay. A project whose name is too long for a folder stays as well.
    """
    left = db.value("SELECT count(*) FROM store.history_tail")
    if left <= tail_values:
        return False
    held = db.run(
        "SELECT r.entity, r.project, count(*) FROM store.history_tail AS t JOIN store.runs AS r ON r.rid = t.rid "
        "GROUP BY ALL ORDER BY 3 DESC, 1, 2"
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
    """Merge levels that are full, and write segments anew of which much was replaced; whether there was any to do."""
    changed = False
    for key in [ProjectKey(*row) for row in db.run("SELECT DISTINCT entity, project FROM store.segments ORDER BY ALL")]:
        while (sources := _due(_live(db, key))) is not None:
            _merge(db, folder, key, sources)
            changed = True
    return changed


def delete_retired(db: Database, folder: Path, grace: timedelta) -> int:
    """Delete the files that were retired longer ago than `grace`, and their records; how many there were.

    Call it only while the published file no longer lists them. Readers that opened an older one have had the grace.
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


def settle_placed(db: Database, folder: Path) -> None:
    """Delete the segments that were placed since the last call and that no transaction listed.

    Other files that are not listed stay: they may be those of a newer state, or of another mirror.
    """
    journal = folder / _PLACED
    try:
        placed = journal.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return
    listed = db.run("SELECT path FROM store.segments WHERE path IN (SELECT unnest(?::VARCHAR[]))", [placed])
    for path in set(placed) - {path for (path,) in listed}:
        (folder / path).unlink(missing_ok=True)
    journal.unlink()


def delete_leftovers(db: Database, folder: Path) -> None:
    """Delete what a killed process left in the folder of segments: parts of files, and files of no transaction."""
    settle_placed(db, folder)
    for part in folder.glob("entity=*/project=*/*.part"):
        part.unlink(missing_ok=True)


def unlisted(db: Database, folder: Path) -> list[str]:
    """The segments in the folder that the database does not list."""
    listed = {path for (path,) in db.run("SELECT path FROM store.segments")}
    return sorted({str(file.relative_to(folder)) for file in folder.glob("entity=*/project=*/*.parquet")} - listed)


def digests(run: Callable[[str], list[Any]]) -> dict[str, str]:
    """The digests that were noted of segments, by path, in the database that `run` runs a statement over.

    None of those that were written before digests were kept; nothing in a file that an older version published.
    """
    if not run(
        "SELECT 1 FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = 'store' "
        "AND table_name = 'segments' AND column_name = 'digest'"
    ):
        return {}
    return dict(run("SELECT path, digest FROM store.segments WHERE digest IS NOT NULL"))


def _seal_project(db: Database, folder: Path, key: ProjectKey) -> None:
    here = [key.entity, key.project]
    source = "store.history_tail AS t JOIN store.runs AS r ON r.rid = t.rid WHERE r.entity = ? AND r.project = ?"
    path = copy_from(db, folder, key, 0, _RANKED, here, order="key_place, run_place, step")
    with db.transaction():
        segment_id, count = _add(db, folder, key, path, 0)
        db.run(
            f"INSERT INTO store.segment_runs SELECT ?, r.run_id, count(*), false FROM {source} GROUP BY ALL ORDER BY 2",
            [segment_id, *here],
        )
        moved = (
            "DELETE FROM store.history_tail WHERE rid IN (SELECT rid FROM store.runs WHERE entity = ? AND project = ?)"
        )
        _equal(path, count, db.value(moved, here))
        views.recreate(db, folder)


def _live(db: Database, key: ProjectKey) -> list[_Segment]:
    rows = db.run(
        "SELECT s.segment_id, s.path, s.level, s.value_count, "
        "coalesce(sum(g.value_count) FILTER (WHERE g.replaced), 0)::BIGINT "
        "FROM store.segments AS s LEFT JOIN store.segment_runs AS g ON g.segment_id = s.segment_id "
        "WHERE s.entity = ? AND s.project = ? AND s.retired_at IS NULL "
        # What is still gathered counts as replaced, and must stay.
        "AND s.segment_id NOT IN (SELECT segment_id FROM store.staged_segments) "
        "GROUP BY s.segment_id, s.path, s.level, s.value_count ORDER BY s.segment_id",
        [key.entity, key.project],
    )
    return [_Segment(*row) for row in rows]


def _due(segments: Sequence[_Segment]) -> list[_Segment] | None:
    """The segments that should become one, which may be one alone; None when all is well."""
    if nothing_left := [segment for segment in segments if not segment.left]:
        return nothing_left
    for level in sorted({segment.level for segment in segments}):
        same = [segment for segment in segments if segment.level == level]
        if len(same) >= MERGE and len(some := _fitting(same[:AT_ONCE])) > 1:
            return some
    return next(([s] for s in segments if s.replaced and s.replaced >= s.value_count * REPLACED_SHARE), None)


def _fitting(segments: Sequence[_Segment]) -> list[_Segment]:
    """As many of the segments, from the first, as fit into one."""
    total = 0
    for place, segment in enumerate(segments):
        total += segment.left
        if total > MOST_VALUES:
            return list(segments[:place])
    return list(segments)


def check(db: Database, folder: Path, paths: Iterable[str]) -> None:
    """Compare segments with their digests before their values are written to another place, where no digest shows it.

    Raises StoreError for the first that is damaged.
    """
    noted = digests(db.run)
    for path in paths:
        if path in noted and files.digest(folder / path) != noted[path]:
            raise StoreError(f"{folder / path} is damaged and is not copied; run `mirror verify --repair`")


def check_run(db: Database, folder: Path, project: ProjectKey, run_id: str) -> None:
    """The same for all segments that hold values of a run."""
    found = db.run(
        "SELECT path FROM store.segments JOIN store.segment_runs AS g USING (segment_id) "
        "WHERE entity = ? AND project = ? AND g.run_id = ? AND NOT g.replaced AND retired_at IS NULL",
        [project.entity, project.project, run_id],
    )
    check(db, folder, [path for (path,) in found])


def _merge(db: Database, folder: Path, key: ProjectKey, sources: Sequence[_Segment]) -> None:
    """Write the sources as one, without the values of replaced runs; nothing when no value is left."""
    level = sources[0].level + (len(sources) > 1)
    ids = [source.segment_id for source in sources]
    left = sum(source.left for source in sources)
    check(db, folder, [source.path for source in sources] if left else [])
    path = place(db, folder, key, level, lambda target: _merge_to(db, folder, target, sources)) if left else None
    with db.transaction():
        if path:
            segment_id, count = _add(db, folder, key, path, level)
            _equal(path, count, left)
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
    """A new segment with the rows of a query (run_id, key, step, value, text); its path within the folder.

    `order` must come to the order of key, run and step.
    """
    return place(db, folder, key, level, lambda target: _copy(db, target, query, params, order))


def _copy(
    db: Database, target: Path, query: str, params: Sequence[object] = (), order: str = "key, run_id, step"
) -> None:
    db.run(
        f"COPY (SELECT run_id, key, step, value, text FROM ({query}) ORDER BY {order}) TO {literal(target)} "
        "(FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)",
        params,
    )


def place(db: Database, folder: Path, key: ProjectKey, level: int, write: Callable[[Path], None]) -> str:
    """A new segment that `write` has made at the path it is given, durable and under its own name.

    Returns the path within the folder. No reader knows of it yet, and the next start deletes it if none ever does.
    """
    sequence = db.value("SELECT coalesce(max(segment_id), 0) + 1 FROM store.segments")
    path = f"{partition(key)}/{level}-{sequence:08d}-{uuid.uuid4().hex}.parquet"
    target = folder / path
    temporary = target.with_suffix(".part")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / _PLACED).open("a", encoding="utf-8") as journal:
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


def enlist(
    db: Database,
    folder: Path,
    key: ProjectKey,
    path: str,
    level: int,
    counts: Mapping[str, int],
    *,
    replaced: bool = False,
) -> int:
    """List a new segment in the open transaction, with how many values of each run it holds; its number.

    The values of one listed as `replaced` are shown by no view. The caller brings the views in line. Raises StoreError
    for a file that does not hold as many values.
    """
    segment_id, count = _add(db, folder, key, path, level)
    _equal(path, count, sum(counts.values()))
    shape = {"segment_id": "BIGINT", "run_id": "VARCHAR", "value_count": "BIGINT", "replaced": "BOOLEAN"}
    rows = [(segment_id, run_id, values, replaced) for run_id, values in sorted(counts.items())]
    with db.table("listed", columns.table(shape, rows)):
        db.run("INSERT INTO store.segment_runs SELECT * FROM listed")
    return segment_id


def _add(db: Database, folder: Path, key: ProjectKey, path: str, level: int) -> tuple[int, int]:
    """List a segment as one in use; its number, and how many values it holds."""
    segment_id = int(db.value("SELECT coalesce(max(segment_id), 0) + 1 FROM store.segments"))
    count = int(db.value(f"SELECT count(*) FROM read_parquet([{pattern(folder / path)}], hive_partitioning = false)"))
    now = datetime.now(UTC).replace(tzinfo=None)
    size = (folder / path).stat().st_size
    db.run(
        "INSERT INTO store.segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)",
        [segment_id, path, key.entity, key.project, level, count, size, now, files.digest(folder / path)],
    )
    return segment_id, count


def _equal(path: str, written: int, expected: int) -> None:
    if written != expected:
        raise StoreError(f"the segment {path} holds {written} values instead of {expected}; it is not used, try again")


def partition(key: ProjectKey) -> str:
    """The folders of a project, as Hive names them."""
    return f"entity={_encoded(key.entity)}/project={_encoded(key.project)}"


def fits(key: ProjectKey) -> bool:
    """Whether the project's name can be that of a folder."""
    return all(len(part.encode()) <= _NAME_BYTES for part in partition(key).split("/"))


def _encoded(name: str) -> str:
    """The name as Hive writes it into a folder's: what has a meaning in paths or patterns becomes %XX.

    Also the first letter of names that are read as NULL.
    """
    special = r"[\x00-\x1f\x7f\"#%&'*+/:<=>?\[\\\]^{|}]|^n(?=ull$)|^_(?=_hive_default_partition__$)"
    return re.sub(special, lambda found: f"%{ord(found[0]):02X}", name, flags=re.IGNORECASE)
