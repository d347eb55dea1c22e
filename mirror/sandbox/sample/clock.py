"""The world's clock while sample data is created: a fixed time in the past."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from mirror.sandbox.clock import Clock

START = datetime(2025, 3, 3, 9, 0, 0)


@contextmanager
def past(clock: Clock, moment: datetime) -> Iterator[None]:
    """Set the clock to `moment` inside the block."""
    before = clock.now
    clock.now = lambda: moment
    try:
        yield
    finally:
        clock.now = before
