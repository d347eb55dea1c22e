"""Curves of several runs for a chart: few points each, with nothing that stands out left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mirror.query.paths import Project

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
    x: str = STEP,
    points: int = 500,
    mean: bool = False,
) -> list[Curve]:
    """The curve of each key of each run that logged it, over the step or another key of the same step.

    One of more than `points` values is cut into equal pieces of the x axis: of each the lowest and the highest value
    are taken, so that no spike is lost, or with `mean` the mean, as smoothing wants it. The last value always stands
    for itself. Values that are not numbers are left out, and so are those at a step without x.
    """
    spans = _spans(connection, runs, keys)
    axis = _spans(connection, runs, [x], of_values=True) if x != STEP else None
    found: list[Curve] = []
    for key in keys:
        for project in dict.fromkeys(project for project, _ in runs):
            wanted = {
                run_id: _Span(span.rows, edge.low, edge.high)
                for home, run_id in runs
                if home == project
                and (span := spans.get((project, run_id, key)))
                and (edge := span if axis is None else axis.get((project, run_id, x)))
            }
            if wanted:
                found += _of_key(connection, project, key, x, wanted, points, mean=mean)
    order = {run: place for place, run in enumerate(runs)}
    return sorted(found, key=lambda curve: (keys.index(curve.key), order[curve.run]))


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
    here = f"entity = ? AND project = ? AND key = ? AND run_id IN ({_marks(spans)})"
    params: list[Any] = [*project, key, *spans]
    values = f"SELECT run_id, step, step AS x, value FROM history WHERE {here} AND value IS NOT NULL"
    if x != STEP:
        values = f"""SELECT v.run_id, v.step, a.value AS x, v.value FROM ({values}) AS v
            JOIN (SELECT run_id, step, value FROM history WHERE {here} AND isfinite(value)) AS a USING (run_id, step)"""
        params += [*project, x, *spans]
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
    found = {run_id: Curve((project, run_id), key, [], [], 0, 0) for run_id in spans}
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
        Curve(curve.run, key, curve.x, curve.y, *seen[run_id]) for run_id, curve in found.items() if seen[run_id][0]
    ]
