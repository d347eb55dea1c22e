"""Reads the published file for this program's own use, with all columns that the store keeps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import duckdb
from msgspec import Struct, field

from mirror.errors import nothing_mirrored, unreadable
from mirror.settings.home import Home
from mirror.store import migrations, projects, runs
from mirror.store.database import MEMORY_LIMIT, Cached, Database
from mirror.store.names import literal
from mirror.store.records import KnownRun, ProjectCursor, ProjectKey
from mirror.store.steady import open_steady

_SIZES = """
    SELECT avg(length(config) + length(summary)),
           (SELECT sum(k.rows) FROM store.run_keys AS k JOIN store.run_records AS r ON r.rid = k.rid
            WHERE r.entity = $entity AND r.project = $project)
           / nullif((SELECT sum(h.rows) FROM store.run_history AS h JOIN store.run_records AS r ON r.rid = h.rid
            WHERE r.entity = $entity AND r.project = $project), 0)
    FROM store.run_records WHERE entity = $entity AND project = $project
"""

_KEY_ROWS = """
    SELECT r.run_id, k.key, k.rows FROM store.run_keys AS k JOIN store.run_records AS r ON r.rid = k.rid
    WHERE r.entity = ? AND r.project = ? AND r.run_id IN (SELECT unnest(?::VARCHAR[]))
"""


class Reader(Database):
    """A read-only connection to the published file. One thread at a time; it keeps the snapshot that it opened."""

    def __init__(self, home: Home) -> None:
        """Open the file. Raises StoreError if nothing is published yet, or if it cannot be read."""
        self.home = home
        self.path = home.published
        self.cached = Cached()
        if not self.path.exists():
            raise nothing_mirrored(self.path)
        # Readers that share one spill folder overwrite each other's files.
        self._spill = home.data / f".{self.path.name}.spill-{os.getpid()}"
        try:
            self._connection = open_steady(self.path, lambda: duckdb.connect(str(self.path), read_only=True))
            # An error that is kept would keep the file open, and DuckDB would return it in place of a newer one.
            with ExitStack() as after_error:
                after_error.callback(self.close)
                self.run("SET enable_progress_bar = false")
                self.run("SET TimeZone = 'UTC'")
                self.run(f"SET memory_limit = {literal(MEMORY_LIMIT)}")
                self.run(f"SET temp_directory = {literal(self._spill)}")
                migrations.check_readable(self.path, self.run)
                after_error.pop_all()
        except duckdb.Error as error:
            raise unreadable(self.path, error) from error

    def close(self) -> None:
        """Close the file and delete the spill folder."""
        super().close()
        shutil.rmtree(self._spill, ignore_errors=True)


@contextmanager
def opened(home: Home) -> Iterator[Reader]:
    """The published file, open until the end of the block. Errors of DuckDB become StoreError."""
    reader = Reader(home)
    try:
        yield reader
    except duckdb.Error as error:
        raise unreadable(reader.path, error) from error
    finally:
        reader.close()


class Mirrored(Struct, frozen=True):
    """What the file has of a project, without documents and values."""

    known: Mapping[str, KnownRun] = field(default_factory=dict)
    cursor: ProjectCursor = field(default_factory=ProjectCursor)


class Sizes(Struct, frozen=True):
    """Means over the mirrored runs of a project; None if it has none.

    `document_bytes`: bytes of a run's config and summary as JSON. `row_values`: values in a history line.
    """

    document_bytes: float | None = None
    row_values: float | None = None


def mirrored(reader: Reader, project: ProjectKey) -> Mirrored | None:
    """What the file has of a project; None if the project is not mirrored."""
    if projects.find(reader, project) is None:
        return None
    return Mirrored(runs.known(reader, project), projects.cursor(reader, project))


def sizes(reader: Reader, project: ProjectKey) -> Sizes:
    """The mean sizes of a project's documents and history lines."""
    found = reader.run(_SIZES, {"entity": project.entity, "project": project.project})[0]
    return Sizes(*(None if size is None else float(size) for size in found))


def key_rows(reader: Reader, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """The number of mirrored values of each history key, by run id."""
    found: dict[str, dict[str, int]] = {}
    for run_id, key, count in reader.run(_KEY_ROWS, [project.entity, project.project, list(run_ids)]):
        found.setdefault(run_id, {})[key] = count
    return found


def rows(reader: Reader, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The rows of these runs in `store.run_records`, with documents as JSON text, by run id."""
    found = reader.arrow(
        "SELECT * FROM store.run_records WHERE entity = ? AND project = ? AND run_id IN (SELECT unnest(?::VARCHAR[]))",
        [project.entity, project.project, list(run_ids)],
    )
    return {row["run_id"]: row for row in found.to_pylist()}


def key_counts(reader: Reader, rids: Sequence[int]) -> dict[int, dict[str, int]]:
    """The number of values of each history key of these runs, by `rid`."""
    found = reader.run(
        "SELECT rid, key, rows FROM store.run_keys WHERE rid IN (SELECT unnest(?::BIGINT[]))", [list(rids)]
    )
    counts: dict[int, dict[str, int]] = {rid: {} for rid in rids}
    for rid, key, number in found:
        counts[rid][key] = number
    return counts
