"""The Parquet segments in which a snapshot keeps history, and the rest of it, which is in a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mirror.snapshot.paths import Project

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TAIL = """
    SELECT r.run_id, t.key, t.step, t.value, t.text
    FROM store.history_tail AS t JOIN store.run_records AS r ON r.rid = t.rid
    WHERE r.entity = ? AND r.project = ? ORDER BY t.key, r.run_id, t.step
"""
"""A query for a project's values that are in no segment: the columns and the order of a segment."""


class Segment(NamedTuple):
    """A segment in use: its path in the history folder and its number of values.

    `replaced` are the runs whose values in it were replaced by others elsewhere, None if there are none; `hidden` is
    the number of these values.
    """

    path: str
    values: int
    replaced: list[str] | None
    hidden: int


def segmented(connection: DuckDBPyConnection) -> bool:
    """Return True if some history is stored in segments; else all of it is in one table."""
    sql = "SELECT 1 FROM store.segments WHERE retired_at IS NULL LIMIT 1"
    return bool(connection.execute(sql).fetchall())


def of_project(connection: DuckDBPyConnection, project: Project) -> list[Segment]:
    """The segments of a project, by path."""
    found = connection.execute(
        "SELECT s.path, s.value_count, list(g.run_id ORDER BY g.run_id) FILTER (WHERE g.replaced), "
        "coalesce(sum(g.value_count) FILTER (WHERE g.replaced), 0)::BIGINT "
        "FROM store.segments AS s LEFT JOIN store.segment_runs AS g ON g.segment_id = s.segment_id "
        "WHERE s.entity = ? AND s.project = ? AND s.retired_at IS NULL GROUP BY ALL ORDER BY 1",
        list(project),
    ).fetchall()
    return [Segment(*row) for row in found]
