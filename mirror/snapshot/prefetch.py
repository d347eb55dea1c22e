"""Loops over the runs of a list are noticed, and what they will ask for next is read with what they ask for now.

One query for thirty runs costs little more than one for one run, and scripts for the official SDK ask run by run.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

Row = Mapping[str, Any]


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
