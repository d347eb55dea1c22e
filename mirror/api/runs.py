"""A list of runs that match a filter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from mirror.api import frames
from mirror.api.display import rows
from mirror.api.histories import sampled, wrong_keys
from mirror.api.run import Run
from mirror.errors import ArgumentError
from mirror.snapshot.paths import Project
from mirror.snapshot.prefetch import Reader
from mirror.snapshot.rows import table
from mirror.snapshot.runs import RunPage

if TYPE_CHECKING:
    from mirror.api.api import Api
    from mirror.snapshot.snapshot import Snapshot

MOST_RUNS = 5000
"""Runs in the pages of a loop behind the first one: whoever goes on mostly goes on to the end."""

SHOWN = 50
"""Runs that a notebook shows of a list."""


class Runs(Sequence[Run]):
    """The runs of a project that match a filter, in order. It acts like a list, and reads pages as they are needed.

    One snapshot of the mirror answers all of it. `len`, positions from either end, slices, `in` and `reversed` work.
    """

    def __init__(
        self,
        api: Api,
        snapshot: Snapshot,
        project: Project,
        filters: dict[str, Any] | None,
        order: str,
        per_page: int,
        *,
        deleted: bool = False,
    ) -> None:
        """Find the runs; `Api.runs` is how to get here. Raises FilterError for a filter or order without meaning."""
        if not isinstance(per_page, int) or per_page < 1:
            raise ArgumentError(f"per_page={per_page!r}: how many runs are read at a time, 1 or more")
        self.entity, self.project = self._key = project
        self.filters = filters or {}
        self.order = order
        self.per_page = per_page
        self._api = api
        self._snapshot = snapshot
        self._found, doubts = snapshot.listed(project, filters, order, deleted=deleted)
        for doubt in doubts:
            warnings.warn(doubt, stacklevel=3)
        self._runs: list[Run | None] = [None] * len(self._found)
        self._rids = [rid for rid, _, _ in self._found]
        self._reader = Reader(snapshot, self._rids)
        self._next = 0

    @property
    def length(self) -> int:
        """How many runs match."""
        return len(self._found)

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> list[Run]: ...
    def __getitem__(self, index: int | slice) -> Run | list[Run]:
        if isinstance(index, slice):
            places = range(len(self))[index]
            if places:
                self._load(min(places), max(places) + 1)
            return [self._at(place) for place in places]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} runs, and none at {index}")
        return self._at(index % len(self))

    def __iter__(self) -> Iterator[Run]:
        self._next = 0
        return self._pages()

    def _pages(self) -> Iterator[Run]:
        size = self.per_page
        place = 0
        while place < len(self):
            end = min(place + size, len(self))
            self._load(place, end)
            yield from cast("list[Run]", self._runs[place:end])
            place, size = end, max(MOST_RUNS, self.per_page)

    def __next__(self) -> Run:
        """The run behind the one that was given last; iterating anew starts again. Raises StopIteration at the end."""
        if self._next >= len(self):
            raise StopIteration
        self._next += 1
        return self._at(self._next - 1)

    next = __next__

    @property
    def objects(self) -> list[Run]:
        """All of the runs; the official client has those here that were loaded so far."""
        return self[:]

    @property
    def more(self) -> bool:
        """Always False: there is no further page to load."""
        return False

    def upgrade_to_full(self) -> None:
        """Do nothing: every run is whole from the start."""

    def to_html(self, height: int = 420, hidden: bool = False) -> str:  # noqa: ARG002
        """The first runs as a table; the arguments are taken for the official client's sake."""
        shown = self[:SHOWN]
        cells = [(run.id, run.name, run.state, run.created_at, run.url) for run in shown]
        return rows(("id", "name", "state", "created_at", "url"), cells, len(self) - len(shown))

    _repr_html_ = to_html

    def __repr__(self) -> str:
        return f"<Runs {self.entity}/{self.project}>"

    def histories(
        self,
        samples: int | None = 500,
        keys: list[str] | None = None,
        x_axis: str = "_step",
        format: Literal["default", "pandas", "polars", "arrow"] = "default",  # noqa: A002
        stream: Literal["default", "system"] = "default",
    ) -> Any:
        """The histories of all these runs below each other, each row with its `run_id`.

        Each run's rows are as `Run.history` gives them; `samples=None` gives every row. "default" is a list of
        dictionaries; the others are one DataFrame or Arrow table with columns by name. A key that is a number in one
        run and text in another is text in polars and Arrow.
        """
        frames.checked(format, ("default", "pandas", "polars", "arrow"))
        if wrong := wrong_keys(keys, stream):
            warnings.warn(wrong, stacklevel=2)
            return self._nothing(format)
        if format == "default":
            return [
                {**row, "run_id": run.id}
                for run, aligned, step_key, order in self._each(samples, keys, x_axis, stream)
                for row in frames.shown(aligned, "dicts", step_key, order)
            ]
        if format == "pandas":
            return self._pandas(samples, keys, x_axis, stream)
        found = frames.together(
            (run.id, table(aligned, step_key))
            for run, aligned, step_key, _ in self._each(samples, keys, x_axis, stream)
        )
        return found if format == "arrow" else frames.package("polars").from_arrow(found)

    def _nothing(self, form: str) -> Any:
        """An answer without rows."""
        if form == "default":
            return []
        return frames.together(()) if form == "arrow" else frames.package(form).DataFrame()

    def _pandas(self, samples: int | None, keys: list[str] | None, x_axis: str, stream: str) -> Any:
        pandas = frames.package("pandas")
        parts = []
        for run, aligned, step_key, _ in self._each(samples, keys, x_axis, stream):
            if len(aligned.steps):
                parts.append(frames.pandas_frame(aligned, step_key).assign(run_id=run.id))
        if not parts:
            return pandas.DataFrame()
        whole = pandas.concat(parts, ignore_index=True)
        return whole[sorted(whole.columns)]

    def _each(
        self, samples: int | None, keys: list[str] | None, x_axis: str, stream: str
    ) -> Iterator[tuple[Run, Any, str | None, list[str]]]:
        for run in self:
            told = run._fact("server_rows")  # noqa: SLF001
            address = run._address  # noqa: SLF001
            found = sampled(self._reader, address, told, samples, keys, x_axis, stream, alone=False)
            yield run, *found

    def _at(self, place: int) -> Run:
        if self._runs[place] is None:
            start = place - place % self.per_page
            self._load(start, start + self.per_page)
        run = self._runs[place]
        assert run is not None
        return run

    def _load(self, start: int, end: int) -> None:
        """Make the runs of these places that are not there yet; they share one page."""
        there = self._runs[start:end]
        if None not in there:
            return
        api, page = self._api, RunPage(self._snapshot, self._rids[start:end], self._key, self._reader)
        made = [Run(api, page, row) for row in self._found[start:end]]
        if any(there):
            made = [old or new for old, new in zip(there, made, strict=True)]
        self._runs[start:end] = made
