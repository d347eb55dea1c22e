"""The rows of one stream of a run, metrics or system metrics: JSON lines in the order in which they arrived."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct, field

from mirror.sandbox import jsontext

STEP = "_step"
"""The key of a row's step."""

T = TypeVar("T")
_TYPES = {bool: "boolean", int: "number", float: "number", str: "string", list: "list", dict: "map", type(None): "nil"}


class KeyStats(Struct):
    """The server's statistics of one key: the number of values of each type, and whether its numbers only rose."""

    counts: Counter[str] = field(default_factory=Counter)
    monotonic: bool = True
    previous: float | None = None

    def see(self, value: object) -> None:
        """Count one more value."""
        kind = _kind(value)
        if kind == "number":
            number: float = value  # type: ignore[assignment]
            if self.previous is not None and not number >= self.previous:
                self.monotonic = False
            self.previous = number
        else:
            self.monotonic = False
        self.counts[kind] += 1

    def forget(self, value: object) -> None:
        """Remove one value from the counts."""
        self.counts[_kind(value)] -= 1
        self.counts = +self.counts


def _kind(value: object) -> str:
    kind = _TYPES.get(type(value), "string")
    return str(value.get("_type", kind)) if isinstance(value, dict) else kind


def leaves(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys of a row with their values: plain nested objects as dotted keys, typed ones (media) whole."""
    for key, value in row.items():
        if type(value) is dict and value and "_type" not in value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return `old` updated with `new`; plain nested objects are merged key by key, typed ones are replaced."""
    out = dict(old)
    for key, value in new.items():
        before = out.get(key)
        if type(value) is dict and type(before) is dict and "_type" not in value and "_type" not in before:
            out[key] = merged(before, value)
        else:
            out[key] = value
    return out


class Lines:
    """A list of JSON rows with their steps. Not thread-safe: the caller must hold the world's lock."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[int] = []
        self.keys: dict[str, KeyStats] = {}
        self._rising = True
        self._sorted: tuple[list[int], list[str]] | None = None

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def last_step(self) -> int:
        """The highest step; -1 without rows."""
        if not self.steps:
            return -1
        return self.steps[-1] if self._rising else max(self.steps)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row, which must have `_step`."""
        self._add(int(row[STEP]), jsontext.write(row), row)

    def append_text(self, line: str) -> None:
        """Add one row with its text unchanged; a row without `_step` gets the next step."""
        row = jsontext.read(line)
        step = row.get(STEP)
        self._add(int(step) if isinstance(step, int | float) else self.last_step + 1, line, row)

    def _add(self, step: int, line: str, row: Mapping[str, Any]) -> None:
        if self.steps and step < self.steps[-1]:
            self._rising = False
        self._sorted = None
        self.steps.append(step)
        self.lines.append(line)
        for key, value in leaves(row):
            stats = self.keys.get(key)
            if stats is None:
                stats = self.keys[key] = KeyStats()
            stats.see(value)

    def load(self, steps: Sequence[int], lines: Sequence[str], keys: Mapping[str, KeyStats]) -> None:
        """Load rows in bulk with the statistics of their keys; steps must rise. Only for an empty stream."""
        assert not self.lines
        self.steps, self.lines, self.keys = list(steps), list(lines), dict(keys)

    def write(self, offset: int, lines: Iterable[str]) -> None:
        """Write lines from `offset` on, as the file stream does: each replaces the line at its offset.

        Later lines stay as they are, and an offset past the end appends: wandb#12269 and #3933 show both.
        """
        new = list(lines)
        old = self.lines[offset : offset + len(new)]
        if old != new[: len(old)]:
            self.rebuild([*self.lines[:offset], *new, *self.lines[offset + len(new) :]])
        else:
            for line in new[len(old) :]:
                self.append_text(line)

    def pop(self) -> dict[str, Any]:
        """Remove and return the row that arrived last."""
        self.steps.pop()
        row: dict[str, Any] = jsontext.read(self.lines.pop())
        self._sorted = None
        for key, value in leaves(row):
            self.keys[key].forget(value)
        return row

    def truncate(self, last_step: int) -> None:
        """Remove every row after `last_step`."""
        self.rebuild([line for step, line in zip(self.steps, self.lines, strict=True) if step <= last_step])

    def rebuild(self, lines: Iterable[str]) -> None:
        """Replace all rows by these lines."""
        kept = list(lines)
        self.lines, self.steps, self.keys, self._rising, self._sorted = [], [], {}, True, None
        for line in kept:
            self.append_text(line)

    def ordered(self) -> tuple[list[int], list[str]]:
        """Return steps and lines, sorted by step."""
        if self._rising:
            return self.steps, self.lines
        if self._sorted is None:
            pairs = sorted(zip(self.steps, self.lines, strict=True), key=lambda pair: pair[0])
            self._sorted = [step for step, _ in pairs], [line for _, line in pairs]
        return self._sorted

    def rows(self) -> list[dict[str, Any]]:
        """Return every row, parsed, sorted by step."""
        return [jsontext.read(line) for line in self.ordered()[1]]

    def last_row(self) -> dict[str, Any]:
        """Return the row at the highest step, parsed; empty without rows."""
        lines = self.ordered()[1]
        return dict(jsontext.read(lines[-1])) if lines else {}

    def page(self, min_step: int | None, max_step: int | None, samples: int | None) -> list[str]:
        """Return the lines with min_step <= _step < max_step, or a random sample if there are more than `samples`."""
        steps, lines = self.ordered()
        low = 0 if min_step is None else bisect_left(steps, min_step)
        high = len(steps) if max_step is None else bisect_left(steps, max_step)
        found = lines[low:high]
        return found if samples is None else drawn(found, samples)

    def sampled(self, keys: Sequence[str], min_step: int | None, max_step: int | None, samples: int) -> list[Any]:
        """Return the rows that have all of `keys`, with only these, at most `samples`; `max_step` is inclusive."""
        steps, lines = self.ordered()
        low = 0 if min_step is None else bisect_left(steps, min_step)
        high = len(steps) if max_step is None else bisect_left(steps, max_step + 1)
        found = []
        for line in lines[low:high]:
            row = jsontext.read(line)
            picked = {}
            for key in keys:
                value = row.get(key, _MISSING)
                if value is _MISSING:
                    value = _dotted(row, key)
                    if value is _MISSING:
                        break
                picked[key] = value
            else:
                found.append(jsontext.strict(picked))
        return drawn(found, samples)

    def describe(self) -> dict[str, Any] | None:
        """Return the value of `historyKeys`; None without rows."""
        if not len(self):
            return None
        return {
            "keys": {
                key: {
                    "typeCounts": [{"type": kind, "count": count} for kind, count in stats.counts.items()],
                    "monotonic": stats.monotonic,
                    "previousValue": jsontext.strict(float(stats.previous)) if stats.previous is not None else None,
                }
                for key, stats in self.keys.items()
            },
            "lastStep": self.last_step,
            "sets": [],
        }


_MISSING = object()


def _dotted(row: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(row, dict) or part not in row:
            return _MISSING
        row = row[part]
    return row


def drawn(items: list[T], samples: int) -> list[T]:
    """Return all items, or `samples` random ones, in order. The same request gets the same sample."""
    if len(items) <= samples:
        return items
    chosen = sorted(random.Random(len(items)).sample(range(len(items)), max(samples, 0)))
    return [items[index] for index in chosen]
