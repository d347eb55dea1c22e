"""The data of the page, as JSON-serialisable values; each function reads one snapshot.

Queries with users' SQL and filters are in `mirror.query.questions`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mirror.errors import UsageError
from mirror.filters.fields import COLUMNS
from mirror.query.status import projects as mirrored
from mirror.snapshot import document_keys
from mirror.snapshot.downsample import curves, logged_keys
from mirror.snapshot.paths import Project, find_projects, find_run

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MOST_KEYS = 5000
MOST_RUNS = 100
MOST_POINTS = 5000

_SHOWN = (
    "name",
    "run_id",
    "state",
    "created_at",
    "heartbeat_at",
    "updated_at",
    "duration_s",
    "username",
    "group_name",
    "job_type",
    "sweep",
    "tags",
    "notes",
    "git_commit",
    "host",
    "history_rows",
    "synced_at",
)
"""The run columns that the table may show; the documents are shown by their keys."""

_NEWEST = 200
"""How many of the newest runs decide whether runs differ in a key."""


def projects(connection: DuckDBPyConnection) -> list[dict[str, Any]]:
    """Every mirrored project with its counts, its freshness and its last error."""
    return [{name: _plain(value) for name, value in project.items()} for project in mirrored(connection)]


def keys(connection: DuckDBPyConnection, project: str) -> dict[str, Any]:
    """The columns that the table of a project's runs may have; the most common keys first.

    `order` is the column's name in an order of runs, null if runs cannot be ordered by it. `varied` is true if the
    newest runs differ in it.
    """
    home = _project(connection, project)
    by_column = {column.name: name for name, column in reversed(COLUMNS.items())} | {"tags": "tags"}
    found = document_keys.most_common(connection, home, MOST_KEYS)
    differing = document_keys.varied(connection, home, _NEWEST)
    return {
        "columns": [{"name": name, "order": by_column.get(name)} for name in _SHOWN],
        "keys": [
            {"name": f"{doc}.{key}", "runs": runs, "order": _order_name(doc, key), "varied": (doc, key) in differing}
            for doc, key, runs in found
        ],
    }


def run(connection: DuckDBPyConnection, path: str) -> dict[str, Any]:
    """One run with all its columns; config and summary as rows of key and text."""
    project, run_id = find_run(connection, path)
    here, address = "entity = ? AND project = ? AND run_id = ?", [*project, run_id]
    cursor = connection.execute(f"SELECT * EXCLUDE (config, summary) FROM runs WHERE {here}", address)
    names = [column[0] for column in cursor.description or ()]
    (row,) = cursor.fetchall()
    documents = {
        document: connection.execute(
            f"SELECT key, value FROM {document}_values WHERE {here} ORDER BY key LIMIT ?", [*address, MOST_KEYS]
        ).fetchall()
        for document in ("config", "summary")
    }
    return {**dict(zip(names, map(_plain, row), strict=True)), **documents}


def history_keys(connection: DuckDBPyConnection, paths: Sequence[str]) -> list[dict[str, Any]]:
    """The keys that can be drawn for these runs; the most common first."""
    return [{"name": key, "runs": count} for key, count in logged_keys(connection, _runs(paths))]


def history(
    connection: DuckDBPyConnection,
    paths: Sequence[str],
    names: Sequence[str],
    *,
    x: str | None,
    points: int,
    mean: bool,
) -> list[dict[str, Any]]:
    """The curves of these keys and runs, reduced by `mirror.snapshot.downsample`."""
    if not 2 <= points <= MOST_POINTS:
        raise UsageError(f"points must be from 2 to {MOST_POINTS}")
    chosen = _runs(paths)
    return [
        {
            "run": f"{curve.run[0]}/{curve.run[1]}",
            "key": curve.key,
            "x_key": curve.x_key,
            "x": curve.x,
            "y": curve.y,
            "rows": curve.rows,
            "not_finite": curve.not_finite,
        }
        for curve in curves(connection, chosen, names, x=x, points=points, mean=mean)
    ]


def _project(connection: DuckDBPyConnection, path: str) -> Project:
    (found,) = find_projects(connection, [path])[:1]
    return found


def _runs(paths: Sequence[str]) -> list[tuple[Project, str]]:
    """Parse paths "entity/project/run_id". Runs that do not exist will have no curves."""
    if len(paths) > MOST_RUNS:
        raise UsageError(f"at most {MOST_RUNS} runs are drawn at a time, not {len(paths)}")
    found = []
    for path in paths:
        parts = path.split("/")
        if len(parts) != 3 or not all(parts):
            raise UsageError(f"{path} is not a run path; use entity/project/run_id")
        found.append((Project(parts[0], parts[1]), parts[2]))
    return list(dict.fromkeys(found))


def _order_name(doc: str, key: str) -> str | None:
    """The key's name in an order of runs; None for a key with a comma, which an order cannot name."""
    return None if "," in key else f"{'summary_metrics' if doc == 'summary' else doc}.{key}"


def _plain(value: Any) -> Any:
    """The value as JSON allows it: times as ISO text in UTC, NaN and infinity as null."""
    if isinstance(value, datetime):
        return f"{value.isoformat(timespec='milliseconds')}Z"
    return None if isinstance(value, float) and not math.isfinite(value) else value
