"""The sweeps of a project, as the server returned them, by the field names of its API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mirror.snapshot.paths import Project
from mirror.wandb_json import loads

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Facts = dict[str, Any]

_LISTED = "SELECT 1 FROM store.listings WHERE entity = ? AND project = ? AND kind = 'sweeps' AND listed_at IS NOT NULL"
_HERE = "FROM store.sweep_records WHERE entity = ? AND project = ? AND deleted_at IS NULL"


def listed(connection: DuckDBPyConnection, project: Project) -> list[Facts] | None:
    """The sweeps that exist on the server, oldest first; None if they were never listed."""
    if not _rows(connection, _LISTED, project):
        return None
    rows = _rows(connection, f"SELECT facts {_HERE} ORDER BY created_at, sweep_id", project)
    return [loads(text) for (text,) in rows]


def one(connection: DuckDBPyConnection, project: Project, name: str) -> Facts | None:
    """The sweep with this id; None if it is not mirrored or was deleted on the server."""
    rows = _rows(connection, f"SELECT facts {_HERE} AND sweep_id = ?", [*project, name])
    return loads(rows[0][0]) if rows else None


def _rows(connection: DuckDBPyConnection, sql: str, params: Sequence[Any]) -> list[Any]:
    """The rows of a query; none if the published file is from a version that knew no sweeps."""
    import duckdb

    try:
        return connection.execute(sql, list(params)).fetchall()
    except duckdb.CatalogException:
        return []
