"""A realistic world: sweeps of some hundred runs over three projects of one team."""

from __future__ import annotations

from mirror.sandbox.sample.oddities import small
from mirror.sandbox.world import World


def full(seed: int = 0) -> World:
    return small(seed)
