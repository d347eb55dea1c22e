"""Curves to draw: of single runs, or the mean of a group's runs with its confidence band."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct

from mirror.snapshot.group_means import group_mean

Points = list[tuple[float, float]]


class Curve(Struct, frozen=True):
    """A line, sorted by x. `low` and `high` bound the 95% confidence interval of the mean; None for a single run.

    `n` is how many of the runs have a value at each x, None for a single run. `ends_early` is True if runs go on where
    the mean is of too few to be drawn; such a mean may be empty. A line is interrupted at NaN.
    """

    label: str
    runs: int
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None
    n: list[int] | None = None
    ends_early: bool = False

    @property
    def note(self) -> str:
        """What the legend says of a mean besides its label; empty for a single run."""
        if self.n is None:
            return ""
        if not self.n:
            return f"{self.runs} runs, not drawn: too few of them have values at the same x"
        n = self.counts
        of = f"{n} runs" if n == f"{self.runs}" else f"{n} of {self.runs} runs"
        return f"mean of {of}, 95% confidence" + (", ends where fewer than half have values" if self.ends_early else "")

    @property
    def counts(self) -> str:
        """Of how many runs the mean is: one number, or the fewest and the most; empty for a single run."""
        drawn = [count for count, y in zip(self.n or (), self.y, strict=False) if not math.isnan(y)]
        if not drawn:
            return ""
        return f"{drawn[0]}" if min(drawn) == max(drawn) else f"{min(drawn)} to {max(drawn)}"


class Chart(Struct, frozen=True):
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
    """Return the mean of a group's runs, where there are enough of them: see `mirror.snapshot.group_means`."""
    present = [points for points in members if points]
    if len(present) < 2:
        return single(label, present[0] if present else [])
    made = group_mean(present)
    part = made.shown()
    ends_early = not part.x or made.x[-1] > part.x[-1]
    return Curve(label, made.runs, part.x, part.mean, part.low, part.high, part.n, ends_early)
