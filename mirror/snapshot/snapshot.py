"""One consistent snapshot of the published file, and what is read from it about runs."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from mirror.errors import NotMirrored, QueryError
from mirror.settings.home import Home
from mirror.snapshot import facts, files, paths
from mirror.snapshot.connection import open_attached
from mirror.snapshot.paths import Project
from mirror.snapshot.run_query import Named, RunQuery, among, holds_list
from mirror.snapshot.series import HistorySource, segmented

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FACTS = (
    *("storage_id", "name", "state", "created_at", "heartbeat_at", "updated_at", "duration_s", "username"),
    *("group_name", "job_type", "sweep", "notes", "description", "git_commit", "host", "url"),
    *("server_rows", "deleted_at"),
)
"""Columns of a run that people look at, beside its tags."""

DOCUMENTS = ("config", "config_meta", "summary")

_numbers = itertools.count(1)


class Address(NamedTuple):
    """Which run: this mirror's own number of it, and the three parts of its path."""

    rid: int
    entity: str
    project: str
    run_id: str

    @property
    def key(self) -> Project:
        """The project it is in."""
        return Project(self.entity, self.project)

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.run_id}"


class ConsoleLine(NamedTuple):
    """A line of a run's console.

    `number` counts from 0, `timestamp` is aware and UTC or None, `level` is "error" for what went to stderr, else "".
    """

    number: int
    timestamp: datetime | None
    level: str
    label: str
    content: str


class Extent(NamedTuple):
    """The highest mirrored step of a run, -1 for one without history, its values, and a key that every row has."""

    last_step: int
    values: int
    dense: str | None


class Snapshot:
    """The published file as it was when this was opened; later publishing does not change what it shows.

    May be used from several threads. Raises StoreError when nothing was published or the file cannot be read.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        # Two readers that share one folder for what memory cannot hold overwrite each other's files.
        spill = f"{home.published}.tmp-{os.getpid()}-{next(_numbers)}" if os.access(home.data, os.W_OK) else ""
        self._connection = open_attached(home.published, spill=spill)
        self._local = threading.local()
        self._lists: dict[tuple[str, str], bool] = {}
        self._names: dict[int, Named] = {}

    @property
    def cursor(self) -> DuckDBPyConnection:
        """A connection of this thread's own."""
        cursor: DuckDBPyConnection | None = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._connection.cursor()
            cursor.execute("USE mirror").fetchall()
            cursor.execute("SET TimeZone = 'UTC'").fetchall()
        return cursor

    @property
    def history(self) -> HistorySource:
        """Where this thread reads histories."""
        return HistorySource(self.cursor, self._segmented)

    @cached_property
    def _segmented(self) -> bool:
        return segmented(self.cursor)

    @cached_property
    def projects(self) -> list[Project]:
        """Every mirrored project, by name."""
        return paths.projects(self.cursor)

    def project(self, text: str, entity: str | None) -> Project:
        """The mirrored project of "entity/project", or of a project alone. Raises NotMirrored."""
        try:
            found = paths.find_projects(self.cursor, [text], entity, self.projects)
        except paths.Ambiguous as error:
            raise NotMirrored(f"{error}; name one", error) from error
        except QueryError as error:
            raise NotMirrored(f"{error}; `mirror sync {text}` takes it in", error) from error
        if len(found) > 1:
            raise NotMirrored(f"{text} fits more than one project; name one")
        return found[0]

    def successes(self) -> dict[Project, datetime | None]:
        """When the last whole pass over each project ended, aware UTC; None for one that never did."""
        rows = self.cursor.execute("SELECT entity, project, last_success_at FROM store.projects").fetchall()
        return {Project(entity, project): at and at.replace(tzinfo=UTC) for entity, project, at in rows}

    def address(self, text: str, entity: str | None, *, deleted: bool) -> Address:
        """The run of a path or of a run id that one project alone has. Raises NotMirrored."""
        try:
            project, run_id = paths.find_run(self.cursor, text, entity)
        except paths.Ambiguous as error:
            raise NotMirrored(f"{error}; name one", error) from error
        except QueryError as error:
            raise NotMirrored(f"{error}; `mirror sync {text}` takes it in", error) from error
        rid, gone = self.cursor.execute(
            "SELECT rid, deleted_at FROM store.runs WHERE entity = ? AND project = ? AND run_id = ?",
            [*project, run_id],
        ).fetchall()[0]
        if gone and not deleted:
            raise NotMirrored(
                f"{project}/{run_id} was deleted on the server (seen {gone:%Y-%m-%d %H:%M} UTC); "
                "deleted=True shows what was mirrored of it"
            )
        return Address(rid, *project, run_id)

    def listed(
        self, project: Project, filters: Mapping[str, Any] | str | None, order: str, *, deleted: bool
    ) -> tuple[list[Named], list[str]]:
        """The runs that match in their order, and what the filter may not mean. Raises FilterError."""
        query = RunQuery.of(self.cursor, project, filters, order, self._holds_list, deleted=deleted)
        rids = query.rids()
        return self.named(rids), (list(query.compiled.warnings) if rids else query.warnings())

    def named(self, rids: Sequence[int]) -> list[Named]:
        """What these runs are called, in this order. What was told before is remembered."""
        known = self._names
        if missing := [rid for rid in rids if rid not in known]:
            here, params = among(missing)
            sql = f"SELECT rid, run_id, name FROM store.runs WHERE {here}"
            known.update({row[0]: row for row in self.cursor.execute(sql, params).fetchall()})
        return [known[rid] for rid in rids]

    def matching(
        self, project: Project, filters: Mapping[str, Any] | str | None, order: str, *, deleted: bool
    ) -> tuple[list[Address], list[str]]:
        """As `listed`, with the address of each run."""
        found, doubts = self.listed(project, filters, order, deleted=deleted)
        return [Address(rid, *project, run_id) for rid, run_id, _ in found], doubts

    def _holds_list(self, doc: str, key: str) -> bool:
        if (doc, key) not in self._lists:
            self._lists[doc, key] = holds_list(self.cursor, doc, key)
        return self._lists[doc, key]

    def column(self, name: str, rids: Sequence[int]) -> dict[int, Any]:
        """One of FACTS or DOCUMENTS of these runs, by rid, and perhaps of more runs.

        One column at a time, since a loop over thousands of runs looks at a few of them.
        """
        assert name in FACTS or name in DOCUMENTS
        here, params = among(rids)
        return dict(self.cursor.execute(f"SELECT rid, {name} FROM store.runs WHERE {here}", params).fetchall())

    def tags(self, rids: Sequence[int]) -> dict[int, list[str]]:
        """The tags of these runs, in their order; a run without any is left out. A tag may hold commas."""
        rows = self.cursor.execute(
            "SELECT rid, tag FROM store.run_tags WHERE rid IN (SELECT unnest(?::BIGINT[])) ORDER BY rid, position",
            [list(rids)],
        ).fetchall()
        found: dict[int, list[str]] = {}
        for rid, tag in rows:
            found.setdefault(rid, []).append(tag)
        return found

    def told(self, rids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """What the server told of these runs and is kept as it told it, by the names of its API."""
        return facts.of_runs(self.cursor, rids)

    def project_facts(self, entity: str, project: str) -> dict[str, Any]:
        """What the server told of a project, by the names of its API; what there is to say of one that it lacks."""
        found = facts.projects(self.cursor, entity, project)
        return found[0] if found else {}

    def server(self, base_url: str) -> dict[str, Any]:
        """What the server told of itself and of whoever holds the key; empty where it did not."""
        return facts.server(self.cursor, base_url)[0]

    def heavy(self, rids: Sequence[int]) -> dict[int, facts.Heavy]:
        """The latest system metrics of these runs, and what was told of their keys, as JSON texts."""
        return facts.heavy(self.cursor, rids)

    def keys(self, rid: int) -> list[tuple[str, int, int, float | None]]:
        """The history keys of a run: key, rows, last step, last number."""
        return self.cursor.execute(
            "SELECT key, rows, last_step, last FROM store.history_keys WHERE rid = ? ORDER BY key", [rid]
        ).fetchall()

    def extents(self, rids: Sequence[int]) -> dict[int, Extent]:
        """How much history each of these runs has."""
        rows = self.cursor.execute(
            "SELECT h.rid, coalesce(any_value(h.last_step), -1), coalesce(sum(k.rows), 0)::BIGINT, "
            "min(k.key) FILTER (k.rows = h.rows) "
            "FROM store.run_history AS h LEFT JOIN store.history_keys AS k ON k.rid = h.rid "
            "WHERE h.rid IN (SELECT unnest(?::BIGINT[])) GROUP BY h.rid",
            [list(rids)],
        ).fetchall()
        return dict.fromkeys(rids, Extent(-1, 0, None)) | {rid: Extent(*told) for rid, *told in rows}

    def has_system_metrics(self, address: Address) -> bool:
        """Whether the system metrics of the run are mirrored, of which there may be none."""
        return facts.events_held(self.cursor, address.rid)

    def metadata(self, rid: int) -> tuple[str | None, bool]:
        """What a run's metadata file holds as JSON text, and whether it is known: whether the file was looked for."""
        rows = self.cursor.execute(
            "SELECT m.file, e.file FROM store.runs AS r LEFT JOIN store.run_metadata AS m ON m.rid = r.rid "
            "LEFT JOIN store.run_extras AS e ON e.rid = r.rid WHERE r.rid = ?",
            [rid],
        ).fetchall()
        text, looked = rows[0] if rows else (None, None)
        return text, text is not None or looked == "none"

    def console(self, rid: int, last: int | None = None) -> list[ConsoleLine] | None:
        """The console lines of a run, or the `last` ones; None where they are not mirrored."""
        if not self.cursor.execute(
            "SELECT 1 FROM store.run_extras WHERE rid = ? AND log_lines IS NOT NULL", [rid]
        ).fetchall():
            return None
        newest = "" if last is None else " ORDER BY line DESC LIMIT ?"
        lines = f"SELECT * FROM store.console WHERE rid = ?{newest}"
        label = "label" if self._labels else "NULL"
        found = self.cursor.execute(
            f"SELECT line, logged_at, level, {label}, text FROM ({lines}) ORDER BY line",
            [rid, *([] if last is None else [last])],
        ).fetchall()
        return [
            ConsoleLine(line, at and at.replace(tzinfo=UTC), level or "", label or "", text)
            for line, at, level, label, text in found
        ]

    @cached_property
    def _labels(self) -> bool:
        """Whether console lines are kept with their writer, as they are since migration 0012."""
        return "label" in {row[0] for row in self.cursor.execute("DESCRIBE store.console").fetchall()}

    def files(self, rid: int, names: Sequence[str], pattern: str | None) -> list[dict[str, Any]] | None:
        """What is mirrored of these files of a run, as W&B tells it but for addresses; None where the list is not."""
        count = files.count(self.cursor, rid)
        return None if count is None else files.page(self.cursor, rid, files.Asked(names, pattern), count)[0]
