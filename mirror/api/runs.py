"""The list of runs that match a filter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from mirror.api import frames
from mirror.api.client import Client
from mirror.api.display import rows
from mirror.api.histories import sampled, warn_unknown, wrong_keys
from mirror.api.lists import Stepped
from mirror.api.run import Run
from mirror.errors import ArgumentError, UsageError
from mirror.metrics import STEP
from mirror.snapshot.paths import Project
from mirror.snapshot.prefetch import Reader
from mirror.snapshot.rows import table
from mirror.snapshot.runs import RunPage

if TYPE_CHECKING:
    from mirror.snapshot.snapshot import Snapshot

__all__ = ["Runs"]

MOST_RUNS = 5000
"""Runs per page of a loop after the first page: a loop that gets there mostly goes on to the end."""

COLUMNS = (
    *("run_id", "name", "state", "created_at", "heartbeat_at", "duration_s", "username", "group_name", "job_type"),
    *("sweep", "tags", "notes"),
)
"""The columns of `runs` in the DataFrame of a list of runs."""

SHOWN = 50
"""How many runs of a list a notebook shows."""


class Runs(Stepped[Run]):
    """The runs of a project that match a filter, in order. Acts like a list, and reads pages as needed.

    Everything comes from one snapshot of the mirror. `len`, negative indices, slices, `in` and `reversed` work.
    """

    def __init__(
        self,
        api: Client,
        snapshot: Snapshot,
        project: Project,
        filters: dict[str, Any] | None,
        order: str,
        per_page: int,
        *,
        deleted: bool = False,
    ) -> None:
        """Find the runs; use `Api.runs` to get one. Raises FilterError for an invalid filter or order."""
        if not isinstance(per_page, int) or per_page < 1:
            raise ArgumentError(f"per_page={per_page!r}: must be the number of runs per page, at least 1")
        self.entity, self.project = self._key = project
        self.filters = filters or {}
        self.order = order
        self.per_page = per_page
        self._api = api
        self._snapshot = snapshot
        self._rows, messages = snapshot.listed(project, filters, order, deleted=deleted)
        for message in messages:
            warnings.warn(message, stacklevel=3)
        self._runs: list[Run | None] = [None] * len(self._rows)
        self._rids = [rid for rid, _, _ in self._rows]
        self._reader = Reader(snapshot, self._rids)

    @property
    def length(self) -> int:
        """The number of matching runs."""
        return len(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> list[Run]: ...
    def __getitem__(self, index: int | slice) -> Run | list[Run]:
        if isinstance(index, slice):
            positions = range(len(self))[index]
            if positions:
                self._load(min(positions), max(positions) + 1)
            return [self._at(position) for position in positions]
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range: there are {len(self)} runs")
        return self._at(index % len(self))

    def _items(self) -> Iterator[Run]:
        size = self.per_page
        start = 0
        while start < len(self):
            end = min(start + size, len(self))
            self._load(start, end)
            yield from cast("list[Run]", self._runs[start:end])
            start, size = end, max(MOST_RUNS, self.per_page)

    def upgrade_to_full(self) -> None:
        """Do nothing: every run is complete from the start."""

    def to_html(self, height: int = 420, hidden: bool = False) -> str:  # noqa: ARG002
        """Return the first runs as an HTML table; the arguments are only accepted for compatibility."""
        shown = self[:SHOWN]
        cells = [(run.id, run.name, run.state, run.created_at, run.url) for run in shown]
        return rows(("id", "name", "state", "created_at", "url"), cells, len(self) - len(shown))

    _repr_html_ = to_html

    def __repr__(self) -> str:
        return f"<Runs {self.entity}/{self.project}>"

    def df(self, columns: Sequence[str] | None = None) -> Any:
        """Return a pandas DataFrame with a row per run, in order.

        `columns` are columns of the relation `runs`, `config.KEY` and `summary.KEY`; by default, some of `runs` and
        all of config and summary. Keys that only hold whole numbers are int64, or Int64 where runs lack them, so that
        a seed of 64 bits keeps its digits. Lists are lists, other mixed values text. Raises MissingPackage without
        pandas, UsageError for an unknown column.
        """
        frames.package("pandas", "")
        if isinstance(columns, str) or not all(isinstance(name, str) for name in columns or ()):
            raise ArgumentError(f"columns={columns!r}: must be a list of names, such as ['name', 'config.lr']")
        chosen = list(columns) if columns else list(COLUMNS)
        try:
            found, documents, unknown = self._snapshot.table(self._key, self._rids, chosen, keys=not columns)
        except UsageError as error:
            raise ArgumentError(str(error).removeprefix("--select: ")) from None
        for message in unknown:
            warnings.warn(message, stacklevel=2)
        return frames.of_runs(found, documents)

    def histories(
        self,
        samples: int | None = 500,
        keys: list[str] | None = None,
        x_axis: str = STEP,
        format: Literal["default", "pandas", "polars", "arrow"] = "default",  # noqa: A002
        stream: Literal["default", "system"] = "default",
    ) -> Any:
        """Return the histories of all these runs together, each row with its `run_id`.

        Each run's rows are those of `Run.history`; `samples=None` returns every row. "default" returns a list of
        dictionaries; the others one DataFrame or Arrow table with sorted columns. A key that is a number in one run and
        text in another is text in polars and Arrow.
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
        """Return a result without rows."""
        if form == "default":
            return []
        return frames.together(()) if form == "arrow" else frames.package(form).DataFrame()

    def _pandas(self, samples: int | None, keys: list[str] | None, x_axis: str, stream: str) -> Any:
        pandas = frames.package("pandas", ", or format='default' for dictionaries")
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
        nothing = True
        for run in self:
            address, server_rows = run._address, run._server_rows  # noqa: SLF001
            found = sampled(self._reader, address, server_rows, samples, keys, x_axis, stream, alone=False)
            nothing = nothing and not len(found[0].steps)
            yield run, *found
        if nothing and keys and len(self):
            warn_unknown(self._snapshot, self[0]._address, [key for key in keys if key != STEP])  # noqa: SLF001

    def _at(self, position: int) -> Run:
        if self._runs[position] is None:
            start = position - position % self.per_page
            self._load(start, start + self.per_page)
        run = self._runs[position]
        assert run is not None
        return run

    def _load(self, start: int, end: int) -> None:
        """Create the missing `Run` objects from `start` to `end`; they share one page."""
        existing = self._runs[start:end]
        if None not in existing:
            return
        api, page = self._api, RunPage(self._snapshot, self._rids[start:end], self._key, self._reader)
        created = [Run(api, page, row) for row in self._rows[start:end]]
        if any(existing):
            created = [old or new for old, new in zip(existing, created, strict=True)]
        self._runs[start:end] = created
