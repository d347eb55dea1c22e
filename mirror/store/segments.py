"""When history moves out of the state file: the tail is sealed to segments, and segments are merged by levels.

A merge writes a new segment and retires its sources, which are deleted after a grace period (`segment_files`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from mirror.store import segment_checks, segment_files, segment_merge, views
from mirror.store.database import Database
from mirror.store.names import pattern
from mirror.store.records import ProjectKey
from mirror.store.segment_merge import Source, Unsuitable

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


class _Segment(Struct, frozen=True):
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
        if segment_files.fits(key):
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


def _seal_project(db: Database, folder: Path, key: ProjectKey) -> None:
    here = [key.entity, key.project]
    source = "store.history_tail AS t JOIN store.run_records AS r ON r.rid = t.rid WHERE r.entity = ? AND r.project = ?"
    path = segment_files.copy_from(db, folder, key, 0, _RANKED, here, order="key_rank, run_rank, step")
    with db.transaction():
        segment_id, count = segment_files.add(db, folder, key, path, 0)
        db.run(
            f"INSERT INTO store.segment_runs SELECT ?, r.run_id, count(*), false FROM {source} GROUP BY ALL ORDER BY 2",
            [segment_id, *here],
        )
        moved = (
            "DELETE FROM store.history_tail "
            "WHERE rid IN (SELECT rid FROM store.run_records WHERE entity = ? AND project = ?)"
        )
        segment_files.check_count(path, count, db.value(moved, here))
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


def _merge(db: Database, folder: Path, key: ProjectKey, sources: Sequence[_Segment]) -> None:
    """Merge the sources to one segment without values of replaced runs, or to none if no value is left."""
    level = sources[0].level + (len(sources) > 1)
    ids = [source.segment_id for source in sources]
    left = sum(source.left for source in sources)
    segment_checks.check(db, folder, [source.path for source in sources] if left else [])
    path = (
        segment_files.create(db, folder, key, level, lambda target: _merge_to(db, folder, target, sources))
        if left
        else None
    )
    with db.transaction():
        if path:
            segment_id, count = segment_files.add(db, folder, key, path, level)
            segment_files.check_count(path, count, left)
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
        segment_files.copy(db, target, kept)
