"""The history of runs: sampled, complete, and scanned row by row."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from mirror.errors import ArgumentError, KeysError, QueryError
from mirror.metrics import STEP
from mirror.snapshot.paths import nearest_of
from mirror.snapshot.prefetch import Reader
from mirror.snapshot.rows import Aligned, align, chunks
from mirror.snapshot.series import Scope, Series
from mirror.snapshot.snapshot import Address, Snapshot

SYSTEM = ("system", "events")
"""The names of the stream of system metrics; the second is the server's own, which older scripts use."""

WINDOW_VALUES = 2_000_000
"""How many values of a run a scan holds in memory at most."""


def sampled(
    reader: Reader,
    address: Address,
    server_rows: int,
    samples: int | None,
    keys: Sequence[str] | None,
    x_axis: str,
    stream: str,
    *,
    alone: bool = True,
) -> tuple[Aligned, str | None, list[str]]:
    """Return what `Run.history` shows: aligned series, the name of the step column, and the columns in their order.

    `alone` is True if only this run is read: then keys that it never logged cause a warning.
    """
    if samples is not None and (not isinstance(samples, int) or isinstance(samples, bool) or samples < 1):
        raise ArgumentError(f"samples={samples!r}: must be a number of rows, at least 1, or None for all rows")
    if stream not in ("default", *SYSTEM):
        raise ArgumentError(f'stream={stream!r}: must be "default" for logged values, or "system" for system metrics')
    if stream in SYSTEM:
        return align(_system(reader, address, samples)), None, []
    if not keys:
        if samples is not None and server_rows <= samples:
            samples = None
        return align(reader.series(address.rid, Scope(samples=samples))), STEP, []
    order = list(dict.fromkeys([x_axis, *keys]))
    logged = tuple(key for key in order if key != STEP)
    found = reader.series(address.rid, Scope(keys=logged, samples=samples, whole=bool(logged)))
    if not found:
        if alone:
            warn_unknown(reader.snapshot, address, logged)
        return align([]), STEP, []
    return _cut_to(align(found), logged), STEP if STEP in order else None, order


def _cut_to(aligned: Aligned, keys: Sequence[str]) -> Aligned:
    """Return only the steps if no key other than the step was asked for."""
    return aligned if keys else Aligned(aligned.steps, ())


def _system(reader: Reader, address: Address, samples: int | None) -> list[Series]:
    found = reader.series(address.rid, Scope(samples=samples, system=True))
    if not found and not reader.snapshot.has_system_metrics(address):
        raise QueryError(
            f"system metrics of {address.entity}/{address.project} are not mirrored: set sync.system_metrics = true "
            "in the config, then `mirror flush`"
        )
    return found


def wrong_keys(keys: Any, stream: str = "default") -> str | None:
    """Return in one line what is wrong with `keys`; None for a list of strings, or no keys."""
    if keys is not None and not isinstance(keys, list | tuple):
        return f"keys must be specified in a list, such as ['loss', 'val/acc'], not as {keys!r}"
    if not all(isinstance(key, str) for key in keys or ()):
        return f"keys argument must be a list of strings, such as ['loss', 'val/acc'], not {keys!r}"
    return 'keys go with stream="default" only' if keys and stream in SYSTEM else None


def warn_unknown(snapshot: Snapshot, address: Address, keys: Sequence[str]) -> None:
    """Warn about keys that the run never logged; the official client silently returns nothing for them."""
    logged = [key for key, *_ in snapshot.keys(address.rid)]
    for key in keys:
        if key not in logged:
            warnings.warn(f"{address} has no key {key!r}; {nearest_of(key, logged)}", stacklevel=4)


class HistoryScan(Iterator[dict[str, Any]]):
    """Every history row of a run as a dictionary, in order of steps. Iterating again starts from the beginning.

    A key that was not logged at a step is missing from its row. With `keys`, only rows that hold all of them, with only
    these keys. Rows are read in windows of steps, so that a run of any length needs little memory.
    """

    def __init__(
        self,
        reader: Reader,
        address: Address,
        *,
        keys: Sequence[str] | None,
        page_size: int,
        min_step: int,
        max_step: int | None,
    ) -> None:
        if wrong := wrong_keys(keys):
            raise KeysError(wrong, ValueError(wrong))
        last = reader.extent(address.rid).last_step
        self.keys = list(keys) if keys else None
        self.page_size = page_size
        self.min_step = min_step
        self._stop = last + 1 if max_step is None else min(max_step, last + 1)
        self._reader = reader
        self._address = address
        self._rows: Iterator[dict[str, Any]] | None = None

    @property
    def max_step(self) -> int:
        """The highest step that a row can have."""
        return self._stop - 1

    def __iter__(self) -> Iterator[dict[str, Any]]:  # noqa: PYI034
        # Not `self`: a loop over the inner iterator does not call a Python function for each row.
        self._rows = chain.from_iterable(self._scan())
        return self._rows

    def __next__(self) -> dict[str, Any]:
        return next(self.__iter__() if self._rows is None else self._rows)

    def _scan(self) -> Iterator[list[dict[str, Any]]]:
        logged = tuple(key for key in dict.fromkeys(self.keys or ()) if key != STEP)
        nothing = True
        for first, end in self._windows():
            scope = Scope(keys=logged, first=first, end=end, whole=bool(logged))
            found = align(self._reader.series(self._address.rid, scope))
            nothing = nothing and not len(found.steps)
            yield from chunks(_cut_to(found, logged) if self.keys else found, STEP)
        if nothing:
            warn_unknown(self._reader.snapshot, self._address, logged)

    def _windows(self) -> Iterator[tuple[int | None, int | None]]:
        """Yield spans of steps with about WINDOW_VALUES values at most; one without bounds if it covers the run."""
        rid = self._address.rid
        extent = self._reader.extent(rid)
        values = extent.values
        if self._stop <= self.min_step:
            return
        everything = self.min_step <= 0 and self._stop > extent.last_step
        if self.keys and values > WINDOW_VALUES:
            values = sum(count for key, count, *_ in self._reader.snapshot.keys(rid) if key in self.keys)
        if values <= WINDOW_VALUES:
            yield (None, None) if everything else (self.min_step, self._stop)
            return
        width = extent._replace(values=values).steps_holding(WINDOW_VALUES)
        for first in range(self.min_step, self._stop, width):
            yield first, min(first + width, self._stop)
