"""Mean curves of groups of runs, as the page draws them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from mirror.errors import QueryError
from mirror.snapshot.downsample import Run, curves, unlogged
from mirror.snapshot.group_means import group_mean
from mirror.snapshot.paths import Project
from mirror.snapshot.run_query import RunQuery

MOST_RUNS = 1000
"""How many runs are read for one chart of means."""

MOST_GROUPS = 20
"""How many groups are drawn: those with the most runs."""

_POINTS = 600
_NOT_SET = "not set"


def of(
    query: RunQuery, group: str, keys: Sequence[str], *, x: str | None, only: Collection[str] | None = None
) -> dict[str, Any]:
    """Group the runs of a query by the column `group`, and return the mean curve of each key in each group.

    `x` is the key of the x axis; None is the one that define_metric gave. `only` restricts the runs to these paths.
    The result is JSON-serialisable: `groups` (label and number of runs), `curves` (a null interrupts a line), and
    `warnings`. Raises QueryError if no run has the column, or none of the keys was logged.
    """
    columns, unknown = query.known_columns([group])
    if unknown:
        raise QueryError(f"cannot group: {unknown[0]}")
    found = query.rows(["entity", "project", "run_id", *columns], limit=None if only else MOST_RUNS + 1).texts()
    labels: dict[Run, str] = {}
    for entity, project, run_id, value in found:
        if only is None or f"{entity}/{project}/{run_id}" in only:
            labels[Project(entity or "", project or ""), run_id or ""] = _NOT_SET if value in (None, "") else str(value)
    if set(labels.values()) == {_NOT_SET}:
        raise QueryError(f"cannot group: none of these runs has {group}")
    warnings = []
    if len(labels) > MOST_RUNS:
        labels = dict(list(labels.items())[:MOST_RUNS])
        warnings.append(f"the groups have only the first {MOST_RUNS:,} of {query.count():,} runs")
    sizes = Counter(labels.values())
    chosen = [label for label, _ in sizes.most_common(MOST_GROUPS)]
    if len(sizes) > MOST_GROUPS:
        warnings.append(f"there are {len(sizes):,} groups; the {MOST_GROUPS} with the most runs are drawn")
    runs = [run for run, label in labels.items() if label in set(chosen)]
    if keys:
        warnings += unlogged(query.connection, runs, keys, x)
    members: dict[tuple[str, str], list[list[tuple[float, float]]]] = {}
    axes: dict[str, str] = {}
    for curve in curves(query.connection, runs, keys, x=x, points=_POINTS, mean=True):
        axes[curve.key] = curve.x_key
        points = sorted(zip(curve.x, curve.y, strict=True))
        members.setdefault((curve.key, labels[curve.run]), []).append(points)
    ordered = sorted(chosen, key=_by_value)
    return {
        "groups": [{"label": label, "runs": sizes[label]} for label in ordered],
        "curves": [
            _curve(key, label, axes[key], members[key, label])
            for key in keys
            for label in ordered
            if (key, label) in members
        ],
        "warnings": warnings,
    }


def _curve(key: str, label: str, axis: str, points: Sequence[list[tuple[float, float]]]) -> dict[str, Any]:
    whole = group_mean(points)
    mean = whole.shown()
    return {
        "key": key,
        "group": label,
        "runs": mean.runs,
        "x_key": axis,
        "x": mean.x,
        "y": _plain(mean.mean),
        "low": _plain(mean.low),
        "high": _plain(mean.high),
        "n": mean.n,
        "ends_early": bool(whole.x) and (not mean.x or whole.x[-1] > mean.x[-1]),
    }


def _plain(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _by_value(label: str) -> tuple[int, float, str]:
    """Numbers by size, then other labels by name, then the runs without a value."""
    try:
        number = float(label)
    except ValueError:
        return (2 if label == _NOT_SET else 1), 0.0, label
    return (0, number, label) if math.isfinite(number) else (1, 0.0, label)
