"""Statistics of groups of runs."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest

from mirror.query.group_table import Statistics
from mirror.snapshot.group_means import half_width


def test_values_that_are_no_numbers_do_not_count(mirror: Any) -> None:
    """A warning says how many there are; large whole numbers keep their digits."""
    done = mirror("table", "team/vision", "--select", "summary.acc,config.mixed", "--agg", "max", "--csv")
    assert done.stdout == "runs,n(summary.acc),max(summary.acc),n(config.mixed),max(config.mixed)\n4,3,1.0,1,3\n"
    assert done.stderr == (
        "warning: summary.acc is NaN or infinite in 1 run, which does not count in its n\n"
        "warning: config.mixed is not a number in 1 run, which does not count in its n\n"
    )
    largest = mirror("table", "team/vision", "--select", "config.layers", "--agg", "max", "--format", "table")
    assert "9007199254740993" in largest.stdout


def test_the_interval_is_that_of_student() -> None:
    """Also for many runs, where it is close to that of the normal distribution; an interval needs two values."""
    values = [float(index % 2) for index in range(32)]
    assert half_width(values, 0.5) == pytest.approx(2.03951 * statistics.stdev(values) / math.sqrt(32), rel=1e-4)
    assert Statistics.of([2]) == Statistics(1, 2.0, None, None, 2, 2, 2)
    assert Statistics.of([]) == Statistics(0)
