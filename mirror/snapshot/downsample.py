"""Curves of several runs for a chart: few points each, with nothing that stands out left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mirror.snapshot.paths import Project

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

STEP = "_step"

Run = tuple[Project, str]
Place = tuple[Project, str, str]


@dataclass(frozen=True)
class Curve:
    """The finite values of a key of a run in the order of x; `not_finite` values are not among them.

    `rows` is how many values there are; where it is more than `len(x)`, these are the telling ones.
    """

    run: Run
    key: str
    x_key: str
    x: list[float]
    y: list[float]
    rows: int
    not_finite: int


@dataclass(frozen=True)
class _Span:
    """How many values a key of a run has, and where they begin and end on the x axis."""

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
    """The curve of each key of each run that logged it, over the step or the last value of another key until then.

    Without `x` each key has the axis that define_metric gave it in most of the runs. Values that are not numbers are
    left out, and so are those before the first value of x.

    A curve of more than `points` values is cut into equal pieces of the x axis: of each the lowest and the highest
    value are taken, so that no spike is lost, or with `mean` the mean, as smoothing wants it. The last value always
    stands for itself.
    """
    spans = _spans(connection, runs, keys)
    found: list[Curve] = []
    edges: dict[str, dict[Place, _Span]] = {}
    for key in keys:
        axis = axis_of(connection, runs, key) if x is None else x
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
                found += _of_key(connection, project, key, axis, wanted, points, mean=mean)
    order = {run: place for place, run in enumerate(runs)}
    return sorted(found, key=lambda curve: (keys.index(curve.key), order[curve.run]))


def axis_of(connection: DuckDBPyConnection, runs: Sequence[Run], key: str) -> str:
    """The key of the x axis that define_metric gave `key` in most of these runs that logged it, else the step.

    A definition counts where the run logged a number under that key: else nothing of the run could be drawn.
    """
    axes: dict[str, int] = {}
    logged = 0
    for project, run_ids in _by_project(runs).items():
        here = f"entity = ? AND project = ? AND key = ? AND run_id IN ({_marks(run_ids)})"
        params = [*project, key, *run_ids]
        logged += connection.execute(f"SELECT count(*) FROM history_keys WHERE {here}", params).fetchall()[0][0]
        sql = f"""SELECT a.x_key, count(*) FROM (SELECT run_id, x_key FROM store.history_axes WHERE {here}) AS a
            JOIN (SELECT run_id, key FROM history_keys WHERE entity = ? AND project = ?
                AND run_id IN ({_marks(run_ids)}) AND min IS NOT NULL) AS k ON k.run_id = a.run_id AND k.key = a.x_key
            GROUP BY a.x_key"""
        for x_key, count in connection.execute(sql, [*params, *project, *run_ids]).fetchall():
            axes[x_key] = axes.get(x_key, 0) + count
    best = max(sorted(axes), key=axes.__getitem__, default=STEP)
    return best if 2 * axes.get(best, 0) >= logged else STEP


def placed(
    connection: DuckDBPyConnection, runs: Sequence[Run], key: str, x: str, samples: int
) -> dict[Run, list[tuple[float, float]]]:
    """The finite values of `key` over the last finite value of `x` at or before their step, in the order of the steps.

    At most `samples` of each run, evenly spaced. A run without any is left out.
    """
    found: dict[Run, list[tuple[float, float]]] = {}
    for project, run_ids in _by_project(runs).items():
        values, params = _placed(project, key, x, run_ids, "isfinite(value)")
        rows = connection.execute(
            f"""SELECT run_id, x, value FROM (
                SELECT run_id, step, x, value, row_number() OVER (PARTITION BY run_id ORDER BY step) - 1 AS i,
                    count(*) OVER (PARTITION BY run_id) AS n
                FROM ({values})
            ) WHERE n <= ? OR i = 0 OR i * (? - 1) // (n - 1) > (i - 1) * (? - 1) // (n - 1)
            ORDER BY run_id, step""",
            [*params, samples, samples, samples],
        ).fetchall()
        for run_id, at, value in rows:
            found.setdefault((project, run_id), []).append((at, value))
    return found


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
    """The keys with numbers that these runs logged, and how many of the runs did; common ones first."""
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


def _by_project(runs: Sequence[Run]) -> dict[Project, list[str]]:
    found: dict[Project, list[str]] = {}
    for project, run_id in runs:
        found.setdefault(project, []).append(run_id)
    return found


def _spans(
    connection: DuckDBPyConnection, runs: Sequence[Run], keys: Sequence[str], *, of_values: bool = False
) -> dict[Place, _Span]:
    """From the first step to the last, or from the lowest value to the highest, of each key of each run."""
    low, high = ("min", "max") if of_values else ("first_step", "last_step")
    found: dict[Place, _Span] = {}
    for project, run_ids in _by_project(runs).items():
        rows = connection.execute(
            f"SELECT run_id, key, rows, {low}, {high} FROM history_keys WHERE entity = ? AND project = ?"
            f" AND run_id IN ({_marks(run_ids)}) AND key IN ({_marks(keys)}) AND {low} IS NOT NULL",
            [*project, *run_ids, *keys],
        ).fetchall()
        found |= {(project, run_id, key): _Span(*span) for run_id, key, *span in rows}
    return found


def _marks(values: Collection[str]) -> str:
    # DuckDB 1.5 takes no empty list.
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
    """One statement for all runs of a project: segments are sorted by key, so that little of them is read."""
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
    found = {run_id: Curve((project, run_id), key, x, [], [], 0, 0) for run_id in spans}
    seen = dict.fromkeys(spans, (0, 0))
    for run_id, x_low, low, x_high, high, x_mean, middle, count, odd in rows:
        seen[run_id] = (seen[run_id][0] + count, seen[run_id][1] + odd)
        if low is None:
            continue
        ends = [(x_mean, middle)] if mean else sorted({(x_low, low), (x_high, high)})
        for at, value in ends:
            found[run_id].x.append(at)
            found[run_id].y.append(value)
    return [
        Curve(curve.run, key, x, curve.x, curve.y, *seen[run_id]) for run_id, curve in found.items() if seen[run_id][0]
    ]
