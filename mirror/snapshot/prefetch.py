"""Detects loops over the runs of a list, and reads what they will ask for next together with the current request.

A query for thirty runs costs little more than a query for one, and scripts for the official SDK ask run by run.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cached_property
from typing import Any, TypeVar

from msgspec.structs import replace

from mirror.snapshot.history_keys import Extent
from mirror.snapshot.sampling import read
from mirror.snapshot.series import Scope, Series
from mirror.snapshot.snapshot import Snapshot

T = TypeVar("T")

TOGETHER = 200
"""How many runs of a list are looked up together; looking up one takes as long."""

AHEAD_VALUES = 2_000_000
"""How many values are read at once for a loop over runs. One query for twenty runs costs little more than for one."""


class Memory:
    """A cache of the `most` latest results from the newest snapshot; those of older ones are dropped. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._version = ""
        self._results: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, version: str, key: Any, find: Callable[[], T]) -> T:
        """The cached result, else the result of `find`, which is cached."""
        result: T | None = self.peek(version, key)
        if result is None:
            result = find()
            self.keep(version, key, result)
        return result

    def peek(self, version: str, key: Any) -> Any:
        """The cached result, or None."""
        with self._lock:
            if version != self._version or key not in self._results:
                return None
            self._results.move_to_end(key)
            return self._results[key]

    def keep(self, version: str, key: Any, found: Any) -> None:
        """Cache a result of the snapshot with this version."""
        with self._lock:
            if version != self._version:
                self._results, self._version = OrderedDict(), version
            self._results[key] = found
            self._results.move_to_end(key)
            while len(self._results) > self._most:
                self._results.popitem(last=False)


class Walks:
    """Remembers how far the loops over lists of runs have got. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._last: OrderedDict[tuple[Hashable, str], int] = OrderedDict()
        self._heavy: set[str] = set()
        self._lock = threading.Lock()

    def follows(self, what: Hashable, listing: str, position: int) -> bool:
        """Return True if the last request for `what` of this list was for the run before this position.

        False for lists that were stopped. The request for this position is remembered.
        """
        with self._lock:
            follows = self._last.get((what, listing)) == position - 1 and listing not in self._heavy
            self._last[what, listing] = position
            self._last.move_to_end((what, listing))
            while len(self._last) > self._most:
                self._last.popitem(last=False)
        return follows

    def stop(self, listing: str) -> None:
        """From now on read the runs of this list one at a time, because they have too much data."""
        with self._lock:
            if len(self._heavy) > self._most:
                self._heavy.clear()
            self._heavy.add(listing)


def together(candidates: Iterable[T], weight: Callable[[T], int], most: int) -> list[T]:
    """The first of these, and as many after it as weigh at most `most` together with it."""
    chosen: list[T] = []
    total = 0
    for candidate in candidates:
        total += weight(candidate)
        if chosen and total > most:
            break
        chosen.append(candidate)
    return chosen


class Reader:
    """Reads the history of the runs of a list, ahead of a loop over them."""

    def __init__(self, snapshot: Snapshot, rids: Sequence[int]) -> None:
        self.snapshot = snapshot
        self._rids = rids
        self._ahead: dict[int, list[Series]] = {}
        # Of one loop: a loop with another scope ends this one.
        self._walks = Walks(1)
        self._lock = threading.Lock()
        self._extents: dict[int, Extent] = {}

    @cached_property
    def _positions(self) -> dict[int, int]:
        return {rid: position for position, rid in enumerate(self._rids)}

    def series(self, rid: int, scope: Scope) -> list[Series]:
        """The series of one run."""
        with self._lock:
            position = self._positions[rid]
            follows = self._walks.follows(scope, "", position)
            if not follows:
                self._ahead = {}
            elif rid in self._ahead:
                return self._ahead.pop(rid)
            wanted = [rid]
            if follows:
                candidates = self._rids[position : position + TOGETHER]
                wanted = together(candidates, lambda other: self.extent(other).values, AHEAD_VALUES)
            values = 0 if scope.system else sum(self.extent(other).values for other in wanted)
            if len(wanted) == 1 and scope.picks and not scope.system:
                scope = replace(scope, dense=self.extent(rid).dense)
            series = read(self.snapshot.history, wanted, scope, values)
            self._ahead = {other: series.get(other, []) for other in wanted}
            return self._ahead.pop(rid)

    def extent(self, rid: int) -> Extent:
        """How much history a run has."""
        if rid not in self._extents:
            start = self._positions[rid] // TOGETHER * TOGETHER
            self._extents |= self.snapshot.extents(self._rids[start : start + TOGETHER])
        return self._extents[rid]
