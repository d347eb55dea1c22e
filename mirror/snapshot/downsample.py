"""Curves of several runs for a chart, reduced to few points each without losing spikes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mirror.errors import QueryError
from mirror.metrics import STEP
from mirror.snapshot.paths import Project, nearest_of
from mirror.snapshot.spread import spread_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


Run = tuple[Project, str]
RunKey = tuple[Project, str, str]
"""Project, run id and history key."""


class Curve(Struct, frozen=True):
    """The finite values of one key of a run, in the order of x. `not_finite` counts the values left out.

    `rows` counts all values; if it exceeds `len(x)`, the curve was reduced to the points that show its shape.
    """

    run: Run
    key: str
    x_key: str
    x: list[float]
    y: list[float]
    rows: int
    not_finite: int


class _Span(Struct, frozen=True):
    """How many values a key of a run has, and their lowest and highest x."""

    rows: int
    low: float
    high: float


def curves(
    connection: DuckDBPyConnection,
    runs: Sequence[Run],
    keys: Sequence[str],
    *,
    x: str | None = STEP,
    points: int = 500,
    mean: bool = False,
) -> list[Curve]:
    """The curve of each key of each run that logged it, over the step or over the last value of another key `x`.

    With `x` None each key gets the axis that define_metric gave it in most of the runs. Values that are not numbers
    are left out, and so are values before the first value of x.

    A curve of more than `points` values is cut into equal pieces of the x axis. Each piece gives its lowest and
    highest value, so that no spike is lost, or with `mean` its mean, as smoothing needs it. The last value is always
    a piece of its own.
    """
    spans = _spans(connection, runs, keys)
    result: list[Curve] = []
    edges: dict[str, dict[RunKey, _Span]] = {}
    axes = axes_of(connection, runs, keys) if x is None else dict.fromkeys(keys, x)
    for key in keys:
        axis = axes[key]
        if axis != STEP and axis not in edges:
            edges[axis] = _spans(connection, runs, [axis], of_values=True)
        for project in dict.fromkeys(project for project, _ in runs):
            wanted = {
                run_id: _Span(span.rows, edge.low, edge.high)
                for home, run_id in runs
                if home == project
                and (span := spans.get((project, run_id, key)))
                and (edge := span if axis == STEP else edges[axis].get((project, run_id, axis)))
            }
            if wanted:
                result += _of_key(connection, project, key, axis, wanted, points, mean=mean)
    order = {run: position for position, run in enumerate(runs)}
    return sorted(result, key=lambda curve: (keys.index(curve.key), order[curve.run]))


def axis_of(connection: DuckDBPyConnection, runs: Sequence[Run], key: str) -> str:
    """The x axis that define_metric gave `key` in most of the runs that logged it; the step if there is none."""
    return axes_of(connection, runs, [key])[key]


def axes_of(connection: DuckDBPyConnection, runs: Sequence[Run], keys: Sequence[str]) -> dict[str, str]:
    """The x axis that define_metric gave each key in most of the runs that logged it; the step if there is none.

    A run's definition counts only if the run logged a number under the axis: otherwise its curve would be empty.
    """
    logged: Counter[str] = Counter()
    axes: dict[str, Counter[str]] = {key: Counter() for key in keys}
    for project, run_ids in _by_project(runs).items():
        here = f"entity = ? AND project = ? AND key IN ({_marks(keys)}) AND run_id IN ({_marks(run_ids)})"
        params = [*project, *keys, *run_ids]
        counts = f"SELECT key, count(*) FROM history_keys WHERE {here} GROUP BY key"
        logged.update(dict(connection.execute(counts, params).fetchall()))
        sql = f"""SELECT a.key, a.x_key, count(*) FROM (
            SELECT run_id, key, x_key FROM store.history_axes WHERE {here}
        ) AS a JOIN (
            SELECT run_id, key FROM history_keys WHERE entity = ? AND project = ?
                AND run_id IN ({_marks(run_ids)}) AND min IS NOT NULL
        ) AS k ON k.run_id = a.run_id AND k.key = a.x_key
        GROUP BY a.key, a.x_key"""
        for key, x_key, count in connection.execute(sql, [*params, *project, *run_ids]).fetchall():
            axes[key][x_key] += count
    best = {key: max(sorted(axes[key]), key=axes[key].__getitem__, default=STEP) for key in axes}
    return {key: axis if 2 * axes[key][axis] >= logged[key] else STEP for key, axis in best.items()}


def placed(
    connection: DuckDBPyConnection, runs: Sequence[Run], key: str, x: str, samples: int
) -> dict[Run, list[tuple[float, float]]]:
    """The finite values of `key`, each with the last finite value of `x` at or before its step, in step order.

    At most `samples` per run, evenly spaced. Runs without values are left out.
    """
    points: dict[Run, list[tuple[float, float]]] = {}
    for project, run_ids in _by_project(runs).items():
        values, params = _placed(project, key, x, run_ids, "isfinite(value)")
        sql = f"{spread_sql(values, 'run_id, x, value', '?', of='run_id')} ORDER BY run_id, step"
        rows = connection.execute(sql, [*params, samples, samples, samples]).fetchall()
        for run_id, at, value in rows:
            points.setdefault((project, run_id), []).append((at, value))
    return points


def _placed(project: Project, key: str, x: str, run_ids: Collection[str], condition: str) -> tuple[str, list[Any]]:
    """A query of run_id, step, x, value; x is the step, or the last finite value of another key at or before it."""
    here = f"entity = ? AND project = ? AND key = ? AND run_id IN ({_marks(run_ids)})"
    values = f"SELECT run_id, step, step AS x, value FROM history WHERE {here} AND {condition}"
    params: list[Any] = [*project, key, *run_ids]
    if x == STEP:
        return values, params
    axis = f"SELECT run_id, step, value FROM history WHERE {here} AND isfinite(value)"
    joined = f"""SELECT v.run_id, v.step, a.value AS x, v.value FROM ({values}) AS v
        ASOF JOIN ({axis}) AS a ON a.run_id = v.run_id AND v.step >= a.step"""
    return joined, [*params, *project, x, *run_ids]


def logged_keys(connection: DuckDBPyConnection, runs: Sequence[Run]) -> list[tuple[str, int]]:
    """The numeric keys of these runs, each with how many of the runs logged it; the most common first."""
    counts: dict[str, int] = {}
    for project, run_ids in _by_project(runs).items():
        rows = connection.execute(
            "SELECT key, count(*) FROM history_keys WHERE entity = ? AND project = ?"
            f" AND run_id IN ({_marks(run_ids)}) AND last IS NOT NULL GROUP BY key",
            [*project, *run_ids],
        ).fetchall()
        for key, count in rows:
            counts[key] = counts.get(key, 0) + int(count)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def unlogged(connection: DuckDBPyConnection, runs: Sequence[Run], keys: Sequence[str], x: str | None) -> list[str]:
    """A warning for each key, and the axis `x`, under which none or only some of these runs logged numbers.

    Names the nearest keys. Raises QueryError if nothing is left to draw.
    """
    logged = dict(logged_keys(connection, runs))
    unknown = [
        f"none of these runs logged numbers under {key}; {nearest_of(key, list(logged))}"
        for key in keys
        if key not in logged
    ]
    if x is not None and x != STEP and x not in logged:
        raise QueryError(f"none of these runs logged numbers under {x}, the x axis; {nearest_of(x, [STEP, *logged])}")
    if len(unknown) == len(keys):
        raise QueryError(unknown[0] if logged else "these runs logged no numbers")
    if x is not None and x != STEP and logged[x] < len(runs):
        unknown.append(f"only {logged[x]:,} of {len(runs):,} runs logged {x}, the x axis; the others are not drawn")
    return unknown


def _by_project(runs: Sequence[Run]) -> dict[Project, list[str]]:
    run_ids: dict[Project, list[str]] = {}
    for project, run_id in runs:
        run_ids.setdefault(project, []).append(run_id)
    return run_ids


def _spans(
    connection: DuckDBPyConnection, runs: Sequence[Run], keys: Sequence[str], *, of_values: bool = False
) -> dict[RunKey, _Span]:
    """The first and last step of each key of each run, or with `of_values` its lowest and highest value."""
    low, high = ("min", "max") if of_values else ("first_step", "last_step")
    spans: dict[RunKey, _Span] = {}
    for project, run_ids in _by_project(runs).items():
        rows = connection.execute(
            f"SELECT run_id, key, rows, {low}, {high} FROM history_keys WHERE entity = ? AND project = ?"
            f" AND run_id IN ({_marks(run_ids)}) AND key IN ({_marks(keys)}) AND {low} IS NOT NULL",
            [*project, *run_ids, *keys],
        ).fetchall()
        spans |= {(project, run_id, key): _Span(*span) for run_id, key, *span in rows}
    return spans


def _marks(values: Collection[str]) -> str:
    # DuckDB 1.5 rejects an empty IN list.
    return ", ".join("?" * len(values)) or "NULL"


def _of_key(
    connection: DuckDBPyConnection,
    project: Project,
    key: str,
    x: str,
    spans: dict[str, _Span],
    points: int,
    *,
    mean: bool,
) -> list[Curve]:
    """The curves of one key, in one statement for all runs: segments are sorted by key, so little of them is read."""
    pieces = max(points if mean else points // 2, 1)
    values, params = _placed(project, key, x, spans, "value IS NOT NULL")
    sql = f"""
        WITH spans AS (
            SELECT unnest(?::VARCHAR[]) AS run_id, unnest(?::BOOLEAN[]) AS whole,
                unnest(?::DOUBLE[]) AS low, unnest(?::DOUBLE[]) AS high
        ), placed AS (
            SELECT run_id, x, value, isfinite(value) AS finite,
                CASE WHEN whole THEN step ELSE floor((x - low) * ? / (high - low)) END AS piece
            FROM ({values}) JOIN spans USING (run_id)
        )
        SELECT run_id,
            arg_min(x, value) FILTER (finite), min(value) FILTER (finite),
            arg_max(x, value) FILTER (finite), max(value) FILTER (finite),
            avg(x) FILTER (finite), avg(value) FILTER (finite), count(*), count(*) FILTER (NOT finite)
        FROM placed GROUP BY run_id, piece ORDER BY run_id, min(x)"""
    whole = [span.rows <= points or not span.high > span.low for span in spans.values()]
    edges = [[span.low for span in spans.values()], [span.high for span in spans.values()]]
    rows = connection.execute(sql, [list(spans), whole, *edges, pieces, *params]).fetchall()
    drawn = {run_id: Curve((project, run_id), key, x, [], [], 0, 0) for run_id in spans}
    counts = dict.fromkeys(spans, (0, 0))
    for run_id, x_low, low, x_high, high, x_mean, y_mean, count, not_finite in rows:
        counts[run_id] = (counts[run_id][0] + count, counts[run_id][1] + not_finite)
        if low is None:
            continue
        kept = [(x_mean, y_mean)] if mean else sorted({(x_low, low), (x_high, high)})
        for at, value in kept:
            drawn[run_id].x.append(at)
            drawn[run_id].y.append(value)
    return [
        Curve(curve.run, key, x, curve.x, curve.y, *counts[run_id])
        for run_id, curve in drawn.items()
        if counts[run_id][0]
    ]
