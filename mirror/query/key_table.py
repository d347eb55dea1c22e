"""The keys of config, summary and history of projects or runs: type, number of runs, and range."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mirror.errors import QueryError
from mirror.snapshot.paths import Project, nearest_of, scope
from mirror.snapshot.result import Rows
from mirror.snapshot.series import whole

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

COLUMNS = ("key", "type", "runs", "min", "max", "distinct", "last_seen")

_DOCUMENT = """SELECT '{doc}.' || v.key, string_agg(DISTINCT v.kind, ', ' ORDER BY v.kind), count(DISTINCT v.run),
    min(v.number) FILTER (isfinite(v.number)), max(v.number) FILTER (isfinite(v.number)), count(DISTINCT v.value),
    max(v.seen)
FROM (
    SELECT d.key, d.kind, d.number, d.value, r.seen, r.run
    FROM {doc}_values AS d JOIN chosen AS r USING (entity, project, run_id)
) AS v GROUP BY v.key"""

_HISTORY = """SELECT k.key, CASE WHEN bool_and(k.last IS NULL) THEN 'other' ELSE 'number' END, count(*),
    min(k.min), max(k.max), NULL, max(r.seen)
FROM history_keys AS k JOIN chosen AS r USING (entity, project, run_id) GROUP BY k.key"""


def table(
    connection: DuckDBPyConnection,
    projects: Sequence[Project],
    runs: Sequence[tuple[Project, str]],
    globs: Sequence[str],
) -> Rows:
    """One row per key, those of the history as they are, the others as `config.KEY` and `summary.KEY`.

    `runs` limits it to some runs; deleted runs are left out otherwise. `min` and `max` are over finite numbers,
    `distinct` counts the values of config and summary keys, `last_seen` is the newest heartbeat of a run that has the
    key. `globs` select keys. Raises QueryError for one that selects none.
    """
    condition, params = scope(projects, "r", runs)
    kept = "" if runs else " AND r.deleted_at IS NULL"
    chosen = f"""WITH chosen AS MATERIALIZED (
        SELECT r.entity, r.project, r.run_id, row_number() OVER () AS run,
            coalesce(r.heartbeat_at, r.created_at) AS seen
        FROM runs AS r WHERE {condition}{kept}
    )"""
    found: list[tuple[object, ...]] = []
    for part in (_DOCUMENT.format(doc="config"), _DOCUMENT.format(doc="summary"), _HISTORY):
        found += connection.execute(f"{chosen} SELECT * FROM ({part}) ORDER BY 3 DESC, 1", params).fetchall()
    return Rows(list(COLUMNS), _selected(found, globs))


def _selected(rows: Sequence[tuple[object, ...]], globs: Sequence[str]) -> Sequence[tuple[object, ...]]:
    names = [str(row[0]) for row in rows]
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            raise QueryError(f"no key {glob}; {nearest_of(glob, names)}")
    wanted = [not globs or any(fnmatchcase(name, glob) for glob in globs) for name in names]
    return [tuple(map(_whole, row)) for row, chosen in zip(rows, wanted, strict=True) if chosen]


def _whole(value: object) -> object:
    """A number as it was logged: without a fraction if it has none."""
    return whole(value) if isinstance(value, float) else value
