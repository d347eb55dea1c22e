"""What the mirror has of single runs besides their history: names, metadata, files, console and system metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from mirror.snapshot.downsample import Run
from mirror.snapshot.paths import Project

if TYPE_CHECKING:
    from datetime import datetime

    from duckdb import DuckDBPyConnection


class File(NamedTuple):
    """One file of a run, as the server listed it."""

    name: str
    size: int
    mimetype: str | None
    updated_at: datetime | None


class Line(NamedTuple):
    """One line of a run's console."""

    line: int
    logged_at: datetime | None
    level: str | None
    text: str


class SystemCurve(NamedTuple):
    """A system metric over the seconds since the start of the run, or over the number of the line without them."""

    key: str
    x_key: str
    x: list[float]
    y: list[float]


_HERE = "entity = ? AND project = ? AND run_id = ?"


def names(connection: DuckDBPyConnection, runs: Sequence[Run]) -> dict[Run, str]:
    """The display name of each run, or its id without one. Runs that are not mirrored are left out."""
    ids: dict[Project, list[str]] = {}
    for project, run_id in runs:
        ids.setdefault(project, []).append(run_id)
    found: dict[Run, str] = {}
    for project, run_ids in ids.items():
        rows = connection.execute(
            "SELECT run_id, name FROM runs WHERE entity = ? AND project = ?"
            " AND run_id IN (SELECT unnest(?::VARCHAR[]))",
            [*project, run_ids],
        ).fetchall()
        found |= {(project, run_id): name or run_id for run_id, name in rows}
    return found


def metadata(connection: DuckDBPyConnection, run: Run, most: int) -> list[tuple[str, str | None]]:
    """Key and text of the run's metadata, such as its host, command and GPUs."""
    sql = f"SELECT key, value FROM run_metadata WHERE {_HERE} ORDER BY key LIMIT ?"
    return connection.execute(sql, [*run[0], run[1], most]).fetchall()


def files(connection: DuckDBPyConnection, run: Run, first: int, start: int = 0) -> tuple[list[File], int]:
    """At most `first` files by name, from index `start` on; and how many there are."""
    address = [*run[0], run[1]]
    ((total,),) = connection.execute(f"SELECT count(*) FROM files WHERE {_HERE}", address).fetchall()
    rows = connection.execute(
        f"SELECT name, size, mimetype, updated_at FROM files WHERE {_HERE} ORDER BY name LIMIT ? OFFSET ?",
        [*address, first, start],
    ).fetchall()
    return [File(*row) for row in rows], int(total)


def console(
    connection: DuckDBPyConnection, run: Run, most: int, before: int | None = None
) -> tuple[list[Line], int, bool]:
    """The last `most` lines of the console, or those before the line `before`, in order.

    Also returns how many lines are mirrored, and whether there are earlier ones than these.
    """
    address = [*run[0], run[1]]
    ((total,),) = connection.execute(f"SELECT count(*) FROM console WHERE {_HERE}", address).fetchall()
    rows = connection.execute(
        f"SELECT line, logged_at, level, text FROM console WHERE {_HERE} AND (? IS NULL OR line < ?)"
        " ORDER BY line DESC LIMIT ?",
        [*address, before, before, most + 1],
    ).fetchall()
    return [Line(*row) for row in reversed(rows[:most])], int(total), len(rows) > most


def system_curves(connection: DuckDBPyConnection, run: Run, points: int, most: int) -> list[SystemCurve]:
    """The system metrics of a run, at most `most` of them by name, each reduced to about `points` values.

    The lines are divided into equal parts, of which each gives the lowest and the highest value of a metric.
    """
    rows = connection.execute(
        f"""WITH v AS (
            SELECT key, step, value FROM system_metrics WHERE {_HERE} AND isfinite(value)
        ), span AS (
            SELECT min(step) AS low, max(step) - min(step) + 1 AS size FROM v
        ), placed AS (
            SELECT v.key, r.value IS NOT NULL AS timed, coalesce(r.value, v.step) AS x, v.value,
                (v.step - span.low) * ? // span.size AS piece
            FROM v CROSS JOIN span
            LEFT JOIN (SELECT step, value FROM v WHERE key = '_runtime') AS r ON r.step = v.step
            WHERE NOT starts_with(v.key, '_')
                AND v.key IN (SELECT DISTINCT key FROM v WHERE NOT starts_with(key, '_') ORDER BY key LIMIT ?)
        )
        SELECT key, bool_and(timed), arg_min(x, value), min(value), arg_max(x, value), max(value)
        FROM placed GROUP BY key, piece ORDER BY key, min(x)""",
        [*run[0], run[1], max(points // 2, 1), most],
    ).fetchall()
    curves: dict[str, SystemCurve] = {}
    timed = all(row[1] for row in rows)
    for key, _, x_low, low, x_high, high in rows:
        curve = curves.setdefault(key, SystemCurve(key, "_runtime" if timed else "line", [], []))
        for x, y in sorted({(x_low, low), (x_high, high)}):
            curve.x.append(x)
            curve.y.append(y)
    return list(curves.values())
