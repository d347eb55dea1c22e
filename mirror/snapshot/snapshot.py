"""A consistent snapshot of the published file, and the queries about runs that the Python API needs."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from mirror.addresses import path_of
from mirror.errors import NotMirrored, QueryError
from mirror.settings.home import Home
from mirror.settings.settings import configured_projects
from mirror.snapshot import console, document_keys, facts, files, history_keys, paths, projects, run_rows, sweeps
from mirror.snapshot import reports as mirrored_reports
from mirror.snapshot.connection import open_attached
from mirror.snapshot.history_keys import Extent
from mirror.snapshot.paths import Project
from mirror.snapshot.run_query import Named, RunQuery, holds_list
from mirror.snapshot.segments import segmented
from mirror.snapshot.series import HistorySource

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

_numbers = itertools.count(1)


class Address(NamedTuple):
    """The address of a run: its `rid` (its number in this mirror), and the three parts of its path."""

    rid: int
    entity: str
    project: str
    run_id: str

    @property
    def key(self) -> Project:
        """The run's project."""
        return Project(self.entity, self.project)

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.run_id}"


class ConsoleLine(NamedTuple):
    """A line of a run's console.

    `number` counts from 0, `timestamp` is an aware UTC time or None, `level` is "error" for stderr, else "".
    """

    number: int
    timestamp: datetime | None
    level: str
    label: str
    content: str


class Snapshot:
    """The published file as it was when this was opened; files published later do not change it.

    `connection` reads the snapshot of a mirror on another machine instead. Safe for use from several threads. Raises
    StoreError if nothing was published or the file cannot be read.
    """

    def __init__(self, home: Home, connection: DuckDBPyConnection | None = None) -> None:
        self.home = home
        self._elsewhere = connection is not None
        # Two readers that spill to the same folder overwrite each other's files.
        own_folder = connection is None and os.access(home.data, os.W_OK)
        spill = f"{home.published}.tmp-{os.getpid()}-{next(_numbers)}" if own_folder else ""
        self._connection = connection or open_attached(home.published, spill=spill)
        self._local = threading.local()
        self._lists: dict[tuple[str, str], bool] = {}
        self._names: dict[int, Named] = {}
        self._known_keys: dict[tuple[Project, bool], set[tuple[str, str]]] = {}

    @property
    def cursor(self) -> DuckDBPyConnection:
        """The connection of the current thread."""
        cursor: DuckDBPyConnection | None = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._connection.cursor()
            if not self._elsewhere:
                cursor.execute("USE mirror").fetchall()
                cursor.execute("SET TimeZone = 'UTC'").fetchall()
        return cursor

    @property
    def history(self) -> HistorySource:
        """The source from which the current thread reads histories."""
        return HistorySource(self.cursor, self._segmented)

    @cached_property
    def _segmented(self) -> bool:
        return segmented(self.cursor)

    @cached_property
    def projects(self) -> list[Project]:
        """Every mirrored project, by name."""
        return paths.projects(self.cursor)

    def project(self, text: str, entity: str | None) -> Project:
        """The mirrored project of "entity/project", or of a project's name alone. Raises NotMirrored."""
        try:
            found = paths.find_projects(self.cursor, [text], entity, self.projects)
        except paths.Ambiguous as error:
            raise NotMirrored(f"{error}; name one", error) from error
        except QueryError as error:
            raise self._not_mirrored(error, text) from error
        if len(found) > 1:
            raise NotMirrored(f"{text} matches more than one project; name one")
        return found[0]

    def _not_mirrored(self, error: QueryError, text: str) -> NotMirrored:
        """The error for a path of which nothing is mirrored. A sync is offered only if no known name is like it."""
        if self._elsewhere:
            # Only the mirror's own machine can pull it.
            return NotMirrored(str(error), error)
        meant = False
        if isinstance(error, paths.UnknownProject):
            error = error.with_configured(configured_projects(self.home, os.environ))
            meant = bool(error.near or error.waits or not error.mirrored)
        elif isinstance(error, paths.UnknownRun):
            meant = bool(error.hint)
        # Without an entity the server cannot be asked.
        whole = path_of(text).strip("/").count("/") >= (2 if isinstance(error, paths.UnknownRun) else 1)
        return NotMirrored(f"{error}" if meant or not whole else f"{error}; `mirror sync {text}` pulls it", error)

    def successes(self) -> dict[Project, datetime | None]:
        """When the last complete pass over each project ended (aware UTC); None if there was none."""
        return {key: at and at.replace(tzinfo=UTC) for key, at in projects.last_successes(self.cursor).items()}

    def address(self, text: str, entity: str | None, *, deleted: bool) -> Address:
        """The run with this path, or with this id or display name if only one has it. Raises NotMirrored."""
        try:
            project, run_id = paths.find_run(self.cursor, text, entity)
        except paths.Ambiguous as error:
            raise NotMirrored(f"{error}; name one", error) from error
        except paths.NotARun as error:
            raise NotMirrored(str(error), error) from error
        except QueryError as error:
            raise self._not_mirrored(error, text) from error
        found = run_rows.find(self.cursor, project, run_id)
        assert found is not None
        rid, deleted_at = found
        if deleted_at and not deleted:
            raise NotMirrored(
                f"{project}/{run_id} was deleted on the server (seen {deleted_at:%Y-%m-%d %H:%M} UTC); "
                "deleted=True shows what was mirrored of it"
            )
        return Address(rid, *project, run_id)

    def listed(
        self, project: Project, filters: Mapping[str, Any] | str | None, order: str, *, deleted: bool
    ) -> tuple[list[Named], list[str]]:
        """The matching runs in order, and warnings of likely mistakes in the filter. Raises FilterError."""
        query = RunQuery.of(self.cursor, project, filters, order, self._holds_list, deleted=deleted)
        keys = set(query.compiled.keys)
        known = self._known_keys.setdefault((project, deleted), set())
        warnings = list(query.compiled.warnings) if keys <= known else query.warnings()
        if len(warnings) == len(query.compiled.warnings):
            known |= keys
        return self.named(query.rids()), warnings

    def named(self, rids: Sequence[int]) -> list[Named]:
        """The ids and display names of these runs, in this order. Results are cached."""
        known = self._names
        if missing := [rid for rid in rids if rid not in known]:
            known.update({row[0]: row for row in run_rows.named(self.cursor, missing)})
        return [known[rid] for rid in rids]

    def matching(
        self, project: Project, filters: Mapping[str, Any] | str | None, order: str, *, deleted: bool
    ) -> tuple[list[Address], list[str]]:
        """Like `listed`, but with the address of each run."""
        runs, warnings = self.listed(project, filters, order, deleted=deleted)
        return [Address(rid, *project, run_id) for rid, run_id, _ in runs], warnings

    def _holds_list(self, doc: str, key: str) -> bool:
        if (doc, key) not in self._lists:
            self._lists[doc, key] = holds_list(self.cursor, doc, key)
        return self._lists[doc, key]

    def column(self, name: str, rids: Sequence[int]) -> dict[int, Any]:
        """A column, one of `run_rows.FACTS` or DOCUMENTS, of these and possibly of other runs, by rid.

        One column at a time, since a loop over thousands of runs reads only a few of them.
        """
        return run_rows.column(self.cursor, name, rids)

    def table(
        self, project: Project, rids: Sequence[int], columns: Sequence[str], *, keys: bool
    ) -> tuple[pa.Table, frozenset[int], list[str]]:
        """Columns of these runs of a project, in their order, with `keys` also all of their config and summary.

        Returns them, the indexes of those that are JSON texts, and a sentence for each unknown key of config or
        summary. Raises UsageError for an unknown column.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        query = RunQuery.of_rids(self.cursor, project, rids)
        unknown = query.unknown_columns(columns)
        every = [f"{doc}.{key}" for doc, key in document_keys.of_runs(self.cursor, rids)] if keys else []
        result = query.rows(list(dict.fromkeys(["run_id", *columns, *every])))
        # Not `result.arrow()`: the cursor that it opens would not use this snapshot's database.
        found = self.cursor.sql(result.sql, params=list(result.params)).to_arrow_table()
        found = found.rename_columns(result.columns)
        ids = pa.array([named[1] for named in self.named(rids)], pa.string())
        ordered = found.take(pc.index_in(ids, value_set=found["run_id"].combine_chunks()))
        if "run_id" in columns:
            return ordered, result.documents, unknown
        return ordered.drop_columns(["run_id"]), frozenset(index - 1 for index in result.documents), unknown

    def tags(self, rids: Sequence[int]) -> dict[int, list[str]]:
        """The tags of these and possibly of other runs, in their order. Runs without tags are left out."""
        return run_rows.tags(self.cursor, rids)

    def run_facts(self, rids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """What the server returned about these runs, stored unchanged, by the field names of its API."""
        return facts.of_runs(self.cursor, rids)

    def project_facts(self, entity: str, project: str) -> dict[str, Any]:
        """What the server returned about a project, by the field names of its API.

        For a project that is not on the server, derived from its runs; {} for one that is not mirrored.
        """
        found = facts.projects(self.cursor, entity, project)
        return found[0] if found else {}

    def sweeps(self, project: Project) -> list[dict[str, Any]] | None:
        """The sweeps of a project, by the field names of the server's API; None if they were never listed."""
        return sweeps.listed(self.cursor, project)

    def sweep(self, project: Project, name: str) -> dict[str, Any] | None:
        """One sweep in the same form; None if it is not mirrored."""
        return sweeps.one(self.cursor, project, name)

    def reports(self, project: Project) -> list[dict[str, Any]] | None:
        """The reports of a project, by the field names of the server's API; None if they are not mirrored."""
        if not mirrored_reports.are_listed(self.cursor, project):
            return None
        return mirrored_reports.views(self.cursor, project, "runs")

    def server(self, base_url: str) -> dict[str, Any]:
        """What the server returned about itself and the API key's user; empty if it never did."""
        return facts.server(self.cursor, base_url)[0]

    def heavy(self, rids: Sequence[int]) -> dict[int, facts.Heavy]:
        """The latest system metrics of these runs, and the facts about their keys, as JSON texts."""
        return facts.heavy(self.cursor, rids)

    def keys(self, rid: int) -> list[history_keys.Key]:
        """The history keys of a run, by name."""
        return history_keys.of_run(self.cursor, rid)

    def extents(self, rids: Sequence[int]) -> dict[int, Extent]:
        """How much history each of these runs has."""
        return history_keys.extents(self.cursor, rids)

    def history_error(self, rid: int) -> str | None:
        """Why the history of a run could not be pulled; None if it could."""
        return projects.history_error(self.cursor, rid)

    def history_rows(self, rids: Sequence[int]) -> dict[int, int | None]:
        """The number of mirrored history lines of these and possibly of other runs, by rid."""
        return {rid: rows for rid, (rows, _) in run_rows.history_sizes(self.cursor, rids).items()}

    def has_system_metrics(self, address: Address) -> bool:
        """Return True if the system metrics of the run, which may be none, are mirrored."""
        return facts.events_held(self.cursor, address.rid)

    def metadata(self, rid: int) -> tuple[str | None, bool]:
        """The content of a run's metadata file as JSON text, and whether the file was looked for (or there is one)."""
        return files.metadata(self.cursor, rid)

    def console(self, rid: int, last: int | None = None) -> list[ConsoleLine] | None:
        """The console lines of a run, or only the `last` ones; None if they are not mirrored."""
        if console.pulled(self.cursor, rid) is None:
            return [] if console.none_on_server(self.cursor, rid) else None
        found = console.lines(self.cursor, rid) if last is None else console.last_lines(self.cursor, rid, last)
        return [
            ConsoleLine(line, at and at.replace(tzinfo=UTC), level or "", label or "", text)
            for line, at, level, text, label in found
        ]

    def file_content(self, address: Address, name: str) -> files.Content | None:
        """The mirrored content of a file of a run; None if it is not mirrored."""
        return files.content(self.cursor, (address.entity, address.project, address.run_id), name)

    def files(self, rid: int, names: Sequence[str], pattern: str | None) -> list[dict[str, Any]] | None:
        """The selected files of a run in W&B's format, without URLs; None if the list of files is not mirrored."""
        count = files.count(self.cursor, rid)
        return None if count is None else files.page(self.cursor, rid, files.Asked(names, pattern), count)[0]
