"""How fresh and how complete the mirror is, from the published file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror.errors import StoreError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_PROJECTS = """
select p.entity || '/' || p.project as project, p.runs, p.running, p.history_rows, p.last_success_at, p.lag_s,
       p.last_error, coalesce(s.set_aside, 0) as set_aside
from projects p left join (
    select r.entity, r.project, count(*) as set_aside
    from store.run_history h join store.runs r using (rid) where h.error is not null group by all
) s on s.entity = p.entity and s.project = p.project
order by 1
"""


def projects(connection: DuckDBPyConnection) -> list[dict[str, Any]]:
    """One entry a project, as below."""
    cursor = connection.execute(_PROJECTS)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def project_status(published: Path) -> list[dict[str, Any]]:
    """One entry a project: runs, running, history_rows, last_success_at (naive UTC), lag_s, last_error, set_aside.

    Empty where nothing was mirrored yet. Raises StoreError when the file cannot be read.
    """
    if not published.exists():
        return []
    import duckdb

    try:
        with duckdb.connect(str(published), read_only=True) as connection:
            return projects(connection)
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise StoreError(f"{published} cannot be read ({reason}); `mirror sync` publishes it anew") from error
