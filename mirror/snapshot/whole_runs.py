"""Everything that is mirrored of runs, for copies of them elsewhere: documents by hundreds, values as streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from mirror.snapshot import history_keys, run_rows
from mirror.snapshot.paths import Project
from mirror.snapshot.run_query import among
from mirror.wandb_json import loads

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

TOGETHER = 200
"""How many runs are read at once; looking up one takes as long."""

VALUES_TOGETHER = 2_000_000
"""About how many history values are sorted at once, unless one run has more."""

_ROWS_AT_ONCE = 50_000

_COLUMNS = (
    *("run_id", "name", "state", "created_at", "heartbeat_at", "duration_s", "group_name", "job_type"),
    *("sweep", "notes", "git_commit", "host", "username", "url", "server_rows", "deleted_at"),
)


class WholeRun(Struct, frozen=True):
    """The record of a run. Times are naive UTC; `metadata` is its metadata file, else the part the server returned.

    `console` and `events` say whether these are mirrored, which may be none; `files` whether the list of files is.
    """

    rid: int
    project: Project
    run_id: str
    name: str | None
    state: str
    created_at: datetime | None
    heartbeat_at: datetime | None
    duration_s: float | None
    group_name: str | None
    job_type: str | None
    sweep: str | None
    notes: str | None
    git_commit: str | None
    host: str | None
    username: str | None
    url: str | None
    server_rows: int | None
    deleted_at: datetime | None
    tags: tuple[str, ...]
    config: dict[str, Any]
    config_meta: dict[str, Any]
    summary: dict[str, Any]
    metadata: dict[str, Any]
    history_rows: int
    history_values: int
    console: bool
    events: bool
    files: bool

    @property
    def path(self) -> str:
        """`entity/project/run_id`."""
        return f"{self.project}/{self.run_id}"


class Value(NamedTuple):
    """A logged value: `text` is JSON, also of an integer past 2^53; without it the value is the number."""

    key: str
    number: float
    text: str | None


Step = tuple[int, list[Value]]
"""What was logged at a step."""


class RunFile(NamedTuple):
    """A file of a run; `path` is None if its content is not mirrored."""

    name: str
    size: int
    path: Path | None


def load(connection: DuckDBPyConnection, project: Project, rids: Sequence[int]) -> list[WholeRun]:
    """The records of runs of one project, in this order. `rids` are at most about TOGETHER, as documents are large."""
    here, params = among(rids, exactly=True)
    rows = connection.execute(f"SELECT rid, {', '.join(_COLUMNS)} FROM store.run_records WHERE {here}", params)
    facts = {rid: dict(zip(_COLUMNS, row, strict=True)) for rid, *row in rows.fetchall()}
    documents = run_rows.documents(connection, run_rows.DOCUMENTS, rids)
    tags = run_rows.tags(connection, rids)
    sizes = run_rows.history_sizes(connection, rids)
    extents = history_keys.extents(connection, rids)
    described = connection.execute(f"SELECT rid, info, file FROM store.metadata_documents WHERE {here}", params)
    metadata = {rid: _document(file) or _document(info) for rid, info, file in described.fetchall()}
    pulled = connection.execute(
        "SELECT rid, log_lines IS NOT NULL, events IS NOT NULL, listed_at IS NOT NULL FROM store.run_extras "
        f"WHERE {here}",
        params,
    )
    extras = {rid: row for rid, *row in pulled.fetchall()}
    # A run that was read from its file on this machine has all that the file has, and one without lines has all.
    counted = connection.execute(
        "SELECT rid, storage_id = '' OR server_log_lines = 0, storage_id = '' OR server_events = 0 "
        f"FROM store.run_records WHERE {here}",
        params,
    )
    nothing_left = {rid: row for rid, *row in counted.fetchall()}
    found = []
    for rid in rids:
        config, config_meta, summary = (_document(text) for text in documents[rid])
        console, events, files = extras.get(rid, (False, False, False))
        found.append(
            WholeRun(
                rid=rid,
                project=project,
                **facts[rid],
                tags=tuple(tags.get(rid, ())),
                config=config,
                config_meta=config_meta,
                summary=summary,
                metadata=metadata.get(rid, {}),
                history_rows=sizes.get(rid, (0, None))[0] or 0,
                history_values=extents[rid].values,
                console=bool(console or nothing_left[rid][0]),
                events=bool(events or nothing_left[rid][1]),
                files=files,
            )
        )
    return found


def _document(text: str | None) -> dict[str, Any]:
    value = loads(text) if text else {}
    return value if isinstance(value, dict) else {}


class Logged(NamedTuple):
    """A run and the streams of what it logged, by rising steps; use them before those of the next run."""

    run: WholeRun
    history: Iterator[Step]
    events: Iterator[Step]


def logged(connection: DuckDBPyConnection, runs: Sequence[WholeRun]) -> Iterator[Logged]:
    """Each run of one project with its history and system metrics, by run id.

    Many runs are read by one statement. What does not fit in DuckDB's memory while it is sorted goes to its temporary
    folder.
    """
    for together in _parcels(runs):
        named = [one.run_id for one in together]
        streams = [
            _ByRun(
                _rows(
                    connection,
                    f"SELECT run_id, step, key, value, text FROM {relation} WHERE entity = ? AND project = ?"
                    " AND run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY run_id, step, key",
                    [*together[0].project, named],
                )
            )
            for relation in ("history", "system_metrics")
        ]
        for one in together:
            yield Logged(one, *(stream.of(one.run_id) for stream in streams))


class _ByRun:
    """Rows that are sorted by run id, given out run by run in that order."""

    def __init__(self, rows: Iterator[tuple[Any, ...]]) -> None:
        self._groups = groupby(rows, key=itemgetter(0))
        self._waiting: tuple[str, Iterator[tuple[Any, ...]]] | None = None

    def of(self, run_id: str) -> Iterator[Step]:
        """The steps of a run; none for one without rows."""
        if self._waiting is None:
            self._waiting = next(self._groups, None)
        if self._waiting is None or self._waiting[0] != run_id:
            return iter(())
        (_, lines), self._waiting = self._waiting, None
        return _steps(lines)


def _parcels(runs: Sequence[WholeRun]) -> Iterator[list[WholeRun]]:
    parcel: list[WholeRun] = []
    values = 0
    for run in sorted(runs, key=lambda one: one.run_id):
        if parcel and values + run.history_values > VALUES_TOGETHER:
            yield parcel
            parcel, values = [], 0
        parcel.append(run)
        values += run.history_values
    if parcel:
        yield parcel


def _rows(connection: DuckDBPyConnection, sql: str, params: list[Any]) -> Iterator[tuple[Any, ...]]:
    # A cursor of its own: another statement on the same one would end the stream.
    cursor = connection.cursor()
    try:
        reader: pa.RecordBatchReader = cursor.sql(sql, params=params).to_arrow_reader(_ROWS_AT_ONCE)
        for batch in reader:
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
    finally:
        cursor.close()


def _steps(rows: Iterator[tuple[Any, ...]]) -> Iterator[Step]:
    for step, values in groupby(rows, key=itemgetter(1)):
        yield step, [Value(key, number, text) for _, _, key, number, text in values]


def files(connection: DuckDBPyConnection, runs: Sequence[WholeRun]) -> dict[str, list[RunFile]]:
    """The listed files of runs of one project, by name, by run id; runs without any are left out."""
    rows = connection.execute(
        "SELECT run_id, name, size, local_path FROM files WHERE entity = ? AND project = ?"
        " AND run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY run_id, name",
        [*runs[0].project, [run.run_id for run in runs]],
    ).fetchall()
    found: dict[str, list[RunFile]] = {}
    for run_id, name, size, path in rows:
        found.setdefault(run_id, []).append(RunFile(name, size or 0, Path(path) if path else None))
    return found


def console_sizes(connection: DuckDBPyConnection, rids: Sequence[int]) -> dict[int, int]:
    """How many console lines of these runs are mirrored, by rid; runs without any are left out."""
    here, params = among(rids, exactly=True)
    return dict(
        connection.execute(
            f"SELECT rid, count(*) FROM store.console_lines WHERE {here} GROUP BY rid", params
        ).fetchall()
    )


def file_sizes(connection: DuckDBPyConnection, runs: Sequence[WholeRun]) -> tuple[int, int, int]:
    """Of the files of these runs of one project: how many have their content here, its bytes, and how many have not."""
    rows = connection.execute(
        "SELECT count(local_path), coalesce(sum(size) FILTER (local_path IS NOT NULL), 0)::BIGINT, "
        "count(*) FILTER (local_path IS NULL) FROM files "
        "WHERE entity = ? AND project = ? AND run_id IN (SELECT unnest(?::VARCHAR[]))",
        [*runs[0].project, [run.run_id for run in runs]],
    ).fetchall()
    held, size, missing = rows[0]
    return held, size, missing
