"""The mirrored projects of a snapshot, how far their passes have got, and the file that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mirror.snapshot.paths import Project

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_STATUS = """
select p.entity || '/' || p.project as project, p.runs, p.running, p.history_rows, p.last_success_at, p.lag_s,
       p.last_error, coalesce(s.set_aside, 0) as set_aside
from projects p left join (
    select r.entity, r.project, count(*) as set_aside
    from store.run_history h join store.run_records r using (rid)
    where h.error is not null and r.deleted_at is null group by all
) s on s.entity = p.entity and s.project = p.project
order by 1
"""

_RUNS_SET_ASIDE = """
select r.entity || '/' || r.project || '/' || r.run_id as run, h.error, h.attempts, h.next_try_at
from store.run_history h join store.run_records r using (rid)
where h.error is not null and r.deleted_at is null
order by h.next_try_at, 1 limit ?
"""

_LISTS_SET_ASIDE = """
select entity || '/' || project as project, case kind when 'views' then 'reports' else kind end as list,
       error, attempts, next_try_at
from store.listings
where error is not null
order by 1, 2
"""


def registered(connection: DuckDBPyConnection) -> list[Project]:
    """Every mirrored project, in the order in which they were registered."""
    rows = connection.execute("SELECT entity, project FROM store.project_records ORDER BY number").fetchall()
    return [Project(*row) for row in rows]


def main_entity(connection: DuckDBPyConnection) -> str | None:
    """The entity with the most mirrored projects; None if nothing is mirrored."""
    found = connection.execute(
        "SELECT entity FROM store.project_records GROUP BY entity ORDER BY count(*) DESC, entity LIMIT 1"
    ).fetchall()
    return found[0][0] if found else None


def last_successes(connection: DuckDBPyConnection) -> dict[Project, datetime | None]:
    """When the last complete pass over each project ended (naive UTC); None if there was none."""
    rows = connection.execute("SELECT entity, project, last_success_at FROM store.project_records").fetchall()
    return {Project(entity, project): at for entity, project, at in rows}


def limits(connection: DuckDBPyConnection) -> dict[Project, tuple[str, str]]:
    """What the config lets be mirrored of each project: the run filter and the globs of history keys, as JSON texts.

    Without a pass they are those that let everything be mirrored.
    """
    rows = connection.execute(
        "SELECT entity, project, coalesce(filters, '{}'), coalesce(history, '[\"*\"]') FROM store.project_records"
    ).fetchall()
    return {Project(entity, project): (filters, history) for entity, project, filters, history in rows}


def status(connection: DuckDBPyConnection) -> list[dict[str, Any]]:
    """One entry per project: project, runs, running, history_rows, last_success_at, lag_s, last_error, set_aside."""
    return _dictionaries(connection, _STATUS)


def runs_set_aside(connection: DuckDBPyConnection, most: int) -> list[dict[str, Any]]:
    """One entry per run whose history could not be pulled: run, error, attempts, next_try_at; by the last of these."""
    return _dictionaries(connection, _RUNS_SET_ASIDE, [most])


def history_error(connection: DuckDBPyConnection, rid: int) -> str | None:
    """Why the history of a run could not be pulled; None if it could, or if the run is deleted and not retried."""
    found = connection.execute(
        "SELECT h.error FROM store.run_history AS h JOIN store.run_records AS r ON r.rid = h.rid "
        "WHERE h.rid = ? AND r.deleted_at IS NULL",
        [rid],
    ).fetchall()
    return found[0][0] if found else None


def lists_set_aside(connection: DuckDBPyConnection) -> list[dict[str, Any]]:
    """One entry per list of a project that could not be pulled: project, list, error, attempts, next_try_at."""
    import duckdb

    try:
        return _dictionaries(connection, _LISTS_SET_ASIDE)
    except duckdb.CatalogException:
        # The file was published by an older program.
        return []


def storage_version(connection: DuckDBPyConnection) -> str | None:
    """The DuckDB version in whose format the file was written; None if the file does not say."""
    found = connection.execute("select value from store.meta where key = 'storage_version'").fetchall()
    return found[0][0] if found else None


def _dictionaries(connection: DuckDBPyConnection, sql: str, params: Sequence[object] = ()) -> list[dict[str, Any]]:
    cursor = connection.execute(sql, params or None)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
