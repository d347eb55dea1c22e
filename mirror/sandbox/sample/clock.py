"""The world's clock while sample data is created: a fixed time in the past."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from mirror.sandbox.world import World

START = datetime(2025, 3, 3, 9, 0, 0)


@contextmanager
def past(world: World, moment: datetime) -> Iterator[None]:
    """Set the world's clock to `moment` inside the block."""
    before = world.now
    world.now = lambda: moment
    try:
        yield
    finally:
        world.now = before
