"""Sample data: a small world of oddities, a realistic large one, bulk projects for benchmarks."""

from __future__ import annotations

from mirror.sandbox.sample.bulk import grid
from mirror.sandbox.sample.live import LiveRun, keep_logging
from mirror.sandbox.sample.long import long_run
from mirror.sandbox.sample.oddities import small
from mirror.sandbox.sample.reports import TITLE as REPORT
from mirror.sandbox.sample.sweeps import full

__all__ = ["REPORT", "LiveRun", "full", "grid", "keep_logging", "long_run", "small"]
