"""The difference of two means with its 95% confidence interval, where the groups may have different spreads."""

from __future__ import annotations

import math

from msgspec import Struct

from mirror.query.group_table import Statistics
from mirror.snapshot.group_means import quantile


class Difference(Struct, frozen=True):
    """The mean of one group less that of another, with Welch's 95% interval; `half` is None if it cannot be computed.

    `why` says why not. `freedom` are the degrees of freedom, rounded down, which makes the interval wider.
    """

    mean: float
    half: float | None
    freedom: int | None = None
    why: str = ""

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        assert self.half is not None
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        assert self.half is not None
        return self.mean + self.half


def difference(one: Statistics, other: Statistics) -> Difference:
    """Of two groups with at least one value each."""
    assert one.mean is not None
    assert other.mean is not None
    middle = one.mean - other.mean
    if one.n < 2 or other.n < 2:
        return Difference(middle, None, why="an interval needs at least 2 runs on both sides")
    assert one.std is not None
    assert other.std is not None
    here, there = one.std**2 / one.n, other.std**2 / other.n
    if here + there == 0:
        return Difference(middle, None, why="no spread on either side: the repeats have equal values")
    freedom = (here + there) ** 2 / (here**2 / (one.n - 1) + there**2 / (other.n - 1))
    whole = max(1, math.floor(freedom + 1e-9))
    return Difference(middle, quantile(whole) * math.sqrt(here + there), whole)
