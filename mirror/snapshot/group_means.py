"""The mean of a group of curves, with its confidence interval and how many curves it is of.

This is the one rule for means over runs: `mirror plot`, the page and tables all use it.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from msgspec import Struct

Points = Sequence[tuple[float, float]]

GRID = 200
"""How many values of x a mean is computed at, if its curves have more."""

# Two-sided 95% quantiles of Student's t for 1 to 30 degrees of freedom.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL = 1.959964


class GroupMean(Struct, frozen=True):
    """The mean of `runs` curves: at each `x` the `mean`, its 95% confidence interval and `n`, the curves it is of.

    Where `n` is 0, the mean is NaN.
    """

    runs: int
    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    n: list[int]

    def shown(self) -> GroupMean:
        """The part to draw and to list: where `n` is at least half of the curves, and at least 2 if there are several.

        Elsewhere a mean says little about the group, and jumps as curves end. Between two such parts there is one
        point with NaN, at which a line is interrupted. All lists are empty if no curves overlap so far.
        """
        parts = list(self._stretches())
        gaps = [part.stop for part in parts[:-1]]

        def kept(values: list[float]) -> list[float]:
            return [v for part in parts for v in [*values[part], *([math.nan] if part.stop in gaps else [])]]

        x = [x for part in parts for x in self.x[part.start : part.stop + (part.stop in gaps)]]
        n = [n for part in parts for n in self.n[part.start : part.stop + (part.stop in gaps)]]
        return GroupMean(self.runs, x, kept(self.mean), kept(self.low), kept(self.high), n)

    def _stretches(self) -> Iterator[slice]:
        start: int | None = None
        for index, count in enumerate([*self.n, 0]):
            if count >= max(_enough(self.runs), 1):
                start = index if start is None else start
            elif start is not None:
                yield slice(start, index)
                start = None


def group_mean(members: Sequence[Points]) -> GroupMean:
    """Return the mean of a group's curves, each finite points sorted by x. Curves without points do not count.

    Curves are interpolated linearly between their points; each counts from its first point to its last. The values
    of x are those of all curves, or GRID evenly spaced ones if these are more, and places in gaps between curves.
    """
    present = [points for points in members if points]
    grid = _grid(present)
    values: list[list[float]] = [[] for _ in grid]
    for points in present:
        first, found = _on(grid, points)
        for index, value in enumerate(found, first):
            values[index].append(value)
    middles = [statistics.fmean(here) if here else math.nan for here in values]
    halves = [half_width(here, middle) for here, middle in zip(values, middles, strict=True)]
    return GroupMean(
        runs=len(present),
        x=grid,
        mean=middles,
        low=[middle - half for middle, half in zip(middles, halves, strict=True)],
        high=[middle + half for middle, half in zip(middles, halves, strict=True)],
        n=[len(here) for here in values],
    )


def _enough(runs: int) -> int:
    """How many curves of a group a mean must be of: half of them, and 2 if there are several."""
    return max(min(runs, 2), (runs + 1) // 2)


def _grid(members: Sequence[Points]) -> list[float]:
    xs = sorted({x for points in members for x, _ in points})
    if len(xs) > GRID:
        first, last = xs[0], xs[-1]
        return [*(first + (last - first) * index / (GRID - 1) for index in range(GRID - 1)), last]
    # Between two such places there may be too few, where some curves end before others begin: a place in the middle.
    changes = [0] * (2 * len(xs))
    for points in members:
        changes[2 * bisect_left(xs, points[0][0])] += 1
        changes[2 * bisect_left(xs, points[-1][0]) + 1] -= 1
    counts = list(accumulate(changes))
    enough = _enough(len(members))
    gaps = [
        (low + high) / 2
        for index, (low, high) in enumerate(pairwise(xs))
        if counts[2 * index + 1] < enough <= min(counts[2 * index], counts[2 * index + 2])
    ]
    return sorted([*xs, *gaps])


def _on(grid: Sequence[float], points: Points) -> tuple[int, list[float]]:
    """The index of the first value of the grid that the curve covers, and the curve's values from there on."""
    start = bisect_left(grid, points[0][0])
    values = []
    at = 0
    for x in grid[start:]:
        if x > points[-1][0]:
            break
        while at + 1 < len(points) and points[at + 1][0] <= x:
            at += 1
        (x0, y0) = points[at]
        if x == x0:
            values.append(y0)
        else:
            (x1, y1) = points[at + 1]
            values.append(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
    return start, values


def half_width(values: Sequence[float], middle: float) -> float:
    """Half of the width of the 95% confidence interval of the mean `middle`; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    return quantile(len(values) - 1) * deviation(values, middle) / math.sqrt(len(values))


def deviation(values: Sequence[float], middle: float) -> float:
    """The standard deviation of a sample of at least two values, with n - 1, around their mean `middle`."""
    # Two passes by hand: `statistics.stdev` computes with fractions, 50 times as long.
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))


def quantile(freedom: int) -> float:
    """The two-sided 95% quantile of Student's t; above the table by its expansion, with an error below 0.0001."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = _NORMAL
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
