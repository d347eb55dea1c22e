"""Curves to draw: of single runs, or the mean of a group's runs with its confidence band."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Points = list[tuple[float, float]]

GRID = 200
"""How many values of x the mean of a group is computed at, if its runs were logged at more."""

# Two-sided 95% quantiles of Student's t for 1 to 30 degrees of freedom; above 30, the normal distribution's is close.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL = 1.96


@dataclass(frozen=True)
class Curve:
    """A line, sorted by x. `low` and `high` bound the 95% confidence interval of the mean; None for a single run."""

    label: str
    runs: int
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


@dataclass(frozen=True)
class Chart:
    """The curves of one key."""

    key: str
    x_key: str
    curves: list[Curve]


def smoothed(points: Points, weight: float) -> Points:
    """Return the exponential moving average, without bias towards zero at its start; weight 0 changes nothing."""
    if not weight:
        return points
    average = 0.0
    bias = 1.0
    averages = []
    for x, y in points:
        average = weight * average + (1 - weight) * y
        bias *= weight
        averages.append((x, average / (1 - bias)))
    return averages


def finite(points: Iterable[tuple[float, float]]) -> Points:
    """Return the points that can be drawn, sorted by x."""
    return sorted(point for point in points if math.isfinite(point[0]) and math.isfinite(point[1]))


def single(label: str, points: Points) -> Curve:
    """Return the curve of one run."""
    return Curve(label, 1, [x for x, _ in points], [y for _, y in points])


def mean(label: str, members: Sequence[Points]) -> Curve:
    """Return the mean of a group's runs with its confidence interval.

    Runs are interpolated linearly between their points; each counts from its first point to its last, and the mean
    reaches as far as the longest run. Where only one run is left, the band has no width.
    """
    present = [points for points in members if points]
    if len(present) < 2:
        return single(label, present[0] if present else [])
    grid = _grid(present)
    y, low, high = [], [], []
    for x in grid:
        values = [value for points in present if (value := _at(points, x)) is not None]
        middle = statistics.fmean(values)
        half = 0.0
        if len(values) > 1:
            quantile = _T[len(values) - 2] if len(values) - 2 < len(_T) else _NORMAL
            half = quantile * statistics.stdev(values) / math.sqrt(len(values))
        y.append(middle)
        low.append(middle - half)
        high.append(middle + half)
    return Curve(label, len(present), grid, y, low, high)


def _grid(members: Sequence[Points]) -> list[float]:
    xs = sorted({x for points in members for x, _ in points})
    if len(xs) <= GRID:
        return xs
    first, last = xs[0], xs[-1]
    return [first + (last - first) * index / (GRID - 1) for index in range(GRID)]


def _at(points: Points, x: float) -> float | None:
    """Interpolate the value at x; None outside of the points."""
    index = bisect_left(points, x, key=lambda point: point[0])
    if index == len(points) or (index == 0 and points[0][0] != x):
        return None
    if points[index][0] == x:
        return points[index][1]
    (x0, y0), (x1, y1) = points[index - 1], points[index]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
