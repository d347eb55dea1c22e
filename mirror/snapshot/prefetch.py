"""Loops over the runs of a list are noticed, and what they will ask for next is read with what they ask for now.

One query for thirty runs costs little more than one for one run, and scripts for the official SDK ask run by run.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

from mirror.snapshot.sampling import DENSE_VALUES, read
from mirror.snapshot.series import Scope, Series
from mirror.snapshot.snapshot import Extent, Snapshot

T = TypeVar("T")

Row = Mapping[str, Any]

TOGETHER = 200
"""Runs of a list that are looked up together; for one it would take as long."""

AHEAD_VALUES = 2_000_000
"""How many values are read at once for a loop over runs: one query for twenty runs costs little more than for one."""


class Memory:
    """What was found in the newest snapshot, the latest things; nothing is kept of former ones. Safe to be shared."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._version = ""
        self._found: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, version: str, key: Any, find: Callable[[], T]) -> T:
        """What was found before, or is found now."""
        found: T | None = self.peek(version, key)
        if found is None:
            found = find()
            self.keep(version, key, found)
        return found

    def peek(self, version: str, key: Any) -> Any:
        """What was found before; None for nothing."""
        with self._lock:
            if version != self._version or key not in self._found:
                return None
            self._found.move_to_end(key)
            return self._found[key]

    def keep(self, version: str, key: Any, found: Any) -> None:
        """Remember this of the snapshot."""
        with self._lock:
            if version != self._version:
                self._found, self._version = OrderedDict(), version
            self._found[key] = found
            self._found.move_to_end(key)
            while len(self._found) > self._most:
                self._found.popitem(last=False)


class Walks:
    """Where the loops over lists stand. Safe to be shared."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._last: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._heavy: set[str] = set()
        self._lock = threading.Lock()

    def next(self, what: str, run: Row, beside: Iterable[Row], fits: Callable[[Sequence[Row]], bool]) -> list[Row]:
        """The runs to read now: this one, and where the one before it was asked for last, those behind it.

        `beside` are the runs of its list, in order; `fits` tells whether some of them may be read together.
        """
        listing, place = run["place"]
        with self._lock:
            follows = self._last.get((what, listing)) == place - 1 and listing not in self._heavy
            self._last[what, listing] = place
            self._last.move_to_end((what, listing))
            while len(self._last) > self._most:
                self._last.popitem(last=False)
        wanted = [run]
        for other in beside if follows else ():
            if other["place"][1] > place:
                if not fits([*wanted, other]):
                    break
                wanted.append(other)
        return wanted

    def stop(self, run: Row) -> None:
        """Read one run at a time of this list from now on: they hold too much."""
        with self._lock:
            if len(self._heavy) > self._most:
                self._heavy.clear()
            self._heavy.add(run["place"][0])


class Reader:
    """Reads the history of the runs of a list. A loop over them is noticed, and served with what was read ahead."""

    def __init__(self, snapshot: Snapshot, rids: Sequence[int]) -> None:
        self.snapshot = snapshot
        self._rids = rids
        self._ahead: dict[int, list[Series]] = {}
        self._scope: Scope | None = None
        self._last = -1
        self._lock = threading.Lock()
        self._extents: dict[int, Extent] = {}

    @cached_property
    def _places(self) -> dict[int, int]:
        return {rid: place for place, rid in enumerate(self._rids)}

    def series(self, rid: int, scope: Scope) -> list[Series]:
        """The series of one run."""
        with self._lock:
            place = self._places[rid]
            follows = scope == self._scope and place == self._last + 1
            self._scope, self._last = scope, place
            if not follows:
                self._ahead = {}
            elif rid in self._ahead:
                return self._ahead.pop(rid)
            wanted = self._following(place) if follows else [rid]
            values = 0 if scope.system else sum(self.extent(other).values for other in wanted)
            if len(wanted) == 1 and scope.picks and not scope.system and values >= DENSE_VALUES:
                scope = replace(scope, dense=self.extent(rid).dense)
            found = read(self.snapshot.history, wanted, scope, values)
            self._ahead = {other: found.get(other, []) for other in wanted}
            return self._ahead.pop(rid)

    def extent(self, rid: int) -> Extent:
        """How much history a run has."""
        if rid not in self._extents:
            start = self._places[rid] // TOGETHER * TOGETHER
            self._extents |= self.snapshot.extents(self._rids[start : start + TOGETHER])
        return self._extents[rid]

    def _following(self, place: int) -> Sequence[int]:
        """This run and as many behind it as are worth one query."""
        candidates = self._rids[place : place + TOGETHER]
        total = 0
        for count, rid in enumerate(candidates):
            total += self.extent(rid).values
            if count and total > AHEAD_VALUES:
                return candidates[:count]
        return candidates
