"""Parts of one run's history: between two steps, as a sample, or read ahead for the pages that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from msgspec import Struct

from mirror.snapshot.history_keys import Extent
from mirror.snapshot.sampling import read
from mirror.snapshot.series import HistorySource, Scope, Series

AHEAD_VALUES = 250_000
"""How many values are read at once of a history that is requested page by page."""


class Window(Struct, frozen=True):
    """Steps from `low` to `high`, exclusive; if there are more than `samples` rows, that many, evenly spaced."""

    low: int | None = None
    high: int | None = None
    samples: int | None = None

    @property
    def most(self) -> int | None:
        """How many rows to choose; None if that cannot be fewer than all."""
        if self.samples is None:
            return None
        bounded = self.low is not None and self.high is not None
        every = bounded and self.samples >= (self.high or 0) - (self.low or 0)
        return None if every else max(self.samples, 0)


class Logged(Struct, frozen=True, dict=True):
    """The row counts of a run and of its keys, known before values are read."""

    rid: int
    rows: int
    last_step: int
    counts: Mapping[str, int]

    @cached_property
    def extent(self) -> Extent:
        """How much history the run has."""
        dense = next((key for key, count in self.counts.items() if count == self.rows), None)
        return Extent(self.last_step, sum(self.counts.values()), dense)

    def values_of(self, wanted: Window) -> int:
        """Estimate the number of values in a window, of which at most `samples` rows are returned."""
        low = max(wanted.low or 0, 0)
        high = self.last_step + 1 if wanted.high is None else min(wanted.high, self.last_step + 1)
        between = self.extent.values_between(low, max(high, low))
        if wanted.samples is None:
            return between
        return min(between, self.extent.values * max(wanted.samples, 0) // max(self.rows, 1))


class Stretch(Struct, frozen=True):
    """The series of a run from step `low` to `high`, exclusive, from one read."""

    low: int
    high: int
    series: list[Series]

    def cut(self, low: int, high: int) -> list[Series] | None:
        """A window of it; None if the window is not completely inside."""
        if not self.low <= low <= high <= self.high:
            return None
        return [part for one in self.series if len((part := one.between(low, high)).steps)]


def window(source: HistorySource, run: Logged, wanted: Window) -> list[Series]:
    """The series of all keys in a window."""
    if wanted.most == 0:
        return []
    scope = Scope(first=wanted.low, end=wanted.high, samples=wanted.most, dense=run.extent.dense)
    return read(source, [run.rid], scope, run.extent.values).get(run.rid, [])


def whole_runs(source: HistorySource, rids: Sequence[int]) -> dict[int, list[Series]]:
    """All series of these runs, by rid; runs without any are left out."""
    return read(source, rids, Scope(), 0)


def stretch(source: HistorySource, run: Logged, low: int, high: int) -> Stretch:
    """The series from `low` to `high`, and of later steps up to about AHEAD_VALUES values."""
    end = max(high, low + run.extent.steps_holding(AHEAD_VALUES))
    return Stretch(low, end, window(source, run, Window(low, end)))
