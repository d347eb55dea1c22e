"""The data of the page, as JSON-serialisable values; each function reads one snapshot.

Queries with users' SQL and filters are in `mirror.query.questions`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mirror.errors import QueryError, UsageError
from mirror.filters.fields import COLUMNS
from mirror.query.status import projects as mirrored
from mirror.snapshot import document_keys, run_details
from mirror.snapshot.downsample import curves, logged_keys, unlogged
from mirror.snapshot.paths import Project, find_projects, find_run
from mirror.snapshot.run_details import names

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MOST_KEYS = 5000
MOST_RUNS = 100
MOST_POINTS = 5000
MOST_FILES = 500
MOST_LINES = 500
MOST_LINE = 4000
"""Characters of a line of the console; a progress bar may be one very long line."""
MOST_CHARTS = 60
SYSTEM_POINTS = 400

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
    """One run with all its columns; config, summary and metadata as rows of key and text."""
    project, run_id = find_run(connection, path)
    here, address = "entity = ? AND project = ? AND run_id = ?", [*project, run_id]
    cursor = connection.execute(f"SELECT * EXCLUDE (config, summary) FROM runs WHERE {here}", address)
    columns = [column[0] for column in cursor.description or ()]
    (row,) = cursor.fetchall()
    documents = {
        document: connection.execute(
            f"SELECT key, value FROM {document}_values WHERE {here} ORDER BY key LIMIT ?", [*address, MOST_KEYS]
        ).fetchall()
        for document in ("config", "summary")
    }
    documents["metadata"] = run_details.metadata(connection, (project, run_id), MOST_KEYS)
    return {**dict(zip(columns, map(_plain, row), strict=True)), **documents}


def history_keys(connection: DuckDBPyConnection, paths: Sequence[str]) -> dict[str, Any]:
    """The `keys` that can be drawn for these runs, the most common first, and the `names` of the runs by path.

    `warnings` has one line for each run that is not mirrored.
    """
    runs = _runs(paths)
    named = names(connection, runs)
    warnings = []
    for project, run_id in runs:
        if (project, run_id) not in named:
            try:
                find_run(connection, f"{project}/{run_id}")
            except QueryError as error:
                warnings.append(str(error))
    return {
        "keys": [{"name": key, "runs": count} for key, count in logged_keys(connection, runs)],
        "names": {f"{project}/{run_id}": name for (project, run_id), name in named.items()},
        "warnings": warnings,
    }


def history(
    connection: DuckDBPyConnection,
    paths: Sequence[str],
    keys: Sequence[str],
    *,
    x: str | None,
    points: int,
    mean: bool,
) -> dict[str, Any]:
    """The `curves` of these keys and runs, reduced by `mirror.snapshot.downsample`, and `warnings` of unknown keys.

    Raises QueryError if none of the runs logged any of the keys, or the key `x` of the x axis.
    """
    if not 2 <= points <= MOST_POINTS:
        raise UsageError(f"points must be from 2 to {MOST_POINTS}")
    chosen = _runs(paths)
    return {
        "warnings": unlogged(connection, chosen, keys, x) if keys else [],
        "curves": [
            {
                "run": f"{curve.run[0]}/{curve.run[1]}",
                "key": curve.key,
                "x_key": curve.x_key,
                "x": curve.x,
                "y": curve.y,
                "rows": curve.rows,
                "not_finite": curve.not_finite,
            }
            for curve in curves(connection, chosen, keys, x=x, points=points, mean=mean)
        ],
    }


def run_files(connection: DuckDBPyConnection, path: str, start: int) -> dict[str, Any]:
    """The list of a run's files, from index `start` on."""
    found, total = run_details.files(connection, find_run(connection, path), MOST_FILES, start)
    return {"total": total, "files": [{name: _plain(value) for name, value in f._asdict().items()} for f in found]}


def run_console(connection: DuckDBPyConnection, path: str, before: int | None) -> dict[str, Any]:
    """The last lines of a run's console, or those before the line `before`."""
    found, total, earlier = run_details.console(connection, find_run(connection, path), MOST_LINES, before)
    lines = [{**line._asdict(), "logged_at": _plain(line.logged_at), "text": line.text[:MOST_LINE]} for line in found]
    return {"total": total, "earlier": earlier, "lines": lines}


def run_system(connection: DuckDBPyConnection, path: str) -> list[dict[str, Any]]:
    """The system metrics of a run as curves."""
    run = find_run(connection, path)
    return [curve._asdict() for curve in run_details.system_curves(connection, run, SYSTEM_POINTS, MOST_CHARTS)]


def paths(texts: Sequence[str]) -> list[str]:
    """The paths of runs, checked. Raises UsageError."""
    return [f"{project}/{run_id}" for project, run_id in _runs(texts)]


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
