"""Reads from the published file how fresh and how complete the mirror is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror.snapshot.connection import opened

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CLOCKS_DIFFER = 60.0
"""Seconds that a time may be ahead of this machine's clock without being an error."""

_PROJECTS = """
select p.entity || '/' || p.project as project, p.runs, p.running, p.history_rows, p.last_success_at, p.lag_s,
       p.last_error, coalesce(s.set_aside, 0) as set_aside
from projects p left join (
    select r.entity, r.project, count(*) as set_aside
    from store.run_history h join store.runs r using (rid)
    where h.error is not null and r.deleted_at is null group by all
) s on s.entity = p.entity and s.project = p.project
order by 1
"""

_SET_ASIDE = """
select r.entity || '/' || r.project || '/' || r.run_id as run, h.error, h.attempts, h.next_try_at
from store.run_history h join store.runs r using (rid)
where h.error is not null and r.deleted_at is null
order by h.next_try_at, 1 limit ?
"""

_WIDE_FAULTS = """
select p.entity || '/' || p.project as project, m.value as fault
from store.meta m join store.projects p on m.key = 'wide_fault_' || p.number
order by 1
"""


def projects(connection: DuckDBPyConnection) -> list[dict[str, Any]]:
    """One entry per project, as in `project_status`."""
    result = _fetch(connection, _PROJECTS)
    for project in result:
        # Views of older versions return a negative lag if a clock was set back.
        if project["lag_s"] is not None and project["lag_s"] < 0:
            project["lag_s"] = 0.0 if project["lag_s"] >= -CLOCKS_DIFFER else None
    return result


def project_status(published: Path) -> list[dict[str, Any]]:
    """One entry per project: runs, running, history_rows, last_success_at (naive UTC), lag_s, last_error, set_aside.

    lag_s is None before the first successful pass, and if that pass is dated in the future. Empty if nothing was
    mirrored yet. Raises StoreError if the file cannot be read.
    """
    return _read(published, projects)


def runs_set_aside(published: Path, most: int = 1000) -> list[dict[str, Any]]:
    """One entry per run whose history could not be pulled: run, error, attempts, next_try_at (naive UTC).

    Ordered by next_try_at. Empty if nothing was mirrored yet. Raises StoreError if the file cannot be read.
    """
    return _read(published, lambda connection: _fetch(connection, _SET_ASIDE, [most]))


def wide_faults(published: Path) -> list[dict[str, Any]]:
    """One entry for each project whose wide relation is incomplete: project and fault, a sentence.

    Empty if nothing was mirrored yet. Raises StoreError if the file cannot be read.
    """
    return _read(published, lambda connection: _fetch(connection, _WIDE_FAULTS))


def _read(published: Path, fetch: Callable[[DuckDBPyConnection], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    if not published.exists():
        return []
    with opened(published) as connection:
        return fetch(connection)


def _fetch(connection: DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
    cursor = connection.execute(sql, parameters or None)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
