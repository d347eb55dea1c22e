"""Which runs are written elsewhere, and the connection that they are read with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mirror.errors import QueryError, UsageError, nothing_mirrored, unreadable
from mirror.settings.home import Home
from mirror.snapshot import run_rows
from mirror.snapshot.connection import open_restricted
from mirror.snapshot.paths import Project
from mirror.snapshot.run_query import RunQuery
from mirror.snapshot.whole_runs import TOGETHER, WholeRun, load

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "200MB"
"""What DuckDB may use to sort a long history; the rest goes to a temporary folder in the home."""


class Chosen(Struct, frozen=True):
    """The runs of each project by their numbers, the oldest first; `deleted` were left out, since the server has not.

    `warnings` are likely mistakes in the filter.
    """

    rids: Mapping[Project, Sequence[int]]
    deleted: int
    warnings: Sequence[str]

    def pages(self, connection: DuckDBPyConnection) -> Iterator[list[WholeRun]]:
        """Yield the records of all runs, some hundreds at a time, each page of one project."""
        for project, rids in self.rids.items():
            for start in range(0, len(rids), TOGETHER):
                yield load(connection, project, rids[start : start + TOGETHER])


@contextmanager
def opened(home: Home) -> Iterator[DuckDBPyConnection]:
    """Open the published file for reading whole histories. Raises StoreError, also for a statement in the block."""
    if not home.published.exists():
        raise nothing_mirrored(home.published)
    import duckdb

    # Two readers that spill to the same folder overwrite each other's files.
    spill = f"{home.published}.tmp-{os.getpid()}" if os.access(home.data, os.W_OK) else ""
    try:
        with open_restricted(home.published, home.history, spill=spill, memory=MEMORY) as connection:
            yield connection
    except duckdb.Error as error:
        raise unreadable(home.published, error) from error


def choose(
    connection: DuckDBPyConnection,
    projects: Sequence[Project],
    runs: Sequence[tuple[Project, str]],
    conditions: Mapping[str, Any] | str | None,
) -> Chosen:
    """Choose these runs, else the runs of the projects that match the filter.

    Runs that were deleted on the server are chosen by name only. Raises UsageError if a filter comes with names of
    runs, QueryError if there is nothing to export.
    """
    if runs:
        if conditions is not None:
            raise UsageError("--filter and --where choose among the runs of projects: name entity/project, not a run")
        found: dict[Project, list[int]] = {}
        for project, run_id in dict.fromkeys(runs):
            row = run_rows.find(connection, project, run_id)
            assert row is not None
            found.setdefault(project, []).append(row[0])
        return Chosen(found, 0, ())
    chosen: dict[Project, list[int]] = {}
    deleted = 0
    warnings: dict[str, None] = {}
    for project in projects:
        query = RunQuery.build(connection, conditions, order="+created_at", projects=[str(project)])
        if rids := query.rids():
            chosen[project] = rids
        every = RunQuery.build(connection, conditions, projects=[str(project)], deleted=True)
        deleted += every.count() - len(rids)
        warnings.update(dict.fromkeys(query.warnings()))
    if not chosen:
        gone = f"; {deleted:,} that the server deleted are exported by name only" if deleted else ""
        raise QueryError(f"no run to export{gone}")
    return Chosen(chosen, deleted, tuple(warnings))
