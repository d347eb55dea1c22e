"""Exports parts of the mirror to files that work without it: Parquet or CSV, or one DuckDB database of tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror.errors import StoreError, UsageError, names_segment, unreadable
from mirror.settings.home import Home
from mirror.snapshot import logged_tables
from mirror.snapshot.connection import open_plain, quiet
from mirror.snapshot.paths import Project, nearest_of, scope
from mirror.snapshot.projects import registered
from mirror.store.names import identifier, literal, unique_names

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# The documented relations, each with the order of its rows.
RELATIONS = {
    "projects": "entity, project",
    "runs": "entity, project, created_at, run_id",
    "run_tags": "entity, project, run_id, tag",
    "config_values": "entity, project, run_id, key",
    "summary_values": "entity, project, run_id, key",
    "history": "entity, project, key, run_id, step",
    "history_keys": "entity, project, run_id, key",
    "system_metrics": "entity, project, key, run_id, step",
    "run_changes": "entity, project, run_id, seen_at",
    "run_metadata": "entity, project, run_id, key",
    "console": "entity, project, run_id, line",
    "files": "entity, project, run_id, name",
    "metric_definitions": "entity, project, run_id, key",
    "sweeps": "entity, project, created_at, sweep_id",
    "reports": "entity, project, created_at, report_id",
    "saved_views": "entity, project, created_at, view_id",
    "artifacts": "entity, project, collection, version_number",
    "artifact_files": "entity, project, collection, version, path",
    "artifact_usage": "entity, project, run_id, relation, artifact_entity, artifact_project, collection, version",
}

OF_PROJECTS = ("projects", "sweeps", "reports", "saved_views", "artifact_files")
"""The relations without a run: all of a project's rows are exported, even if only some of its runs are."""


# Views over history and files, which can be exported by name.
DERIVED = {
    "media": "entity, project, run_id, key, step, item",
    "histograms": "entity, project, run_id, key, step, bin",
    "tables": "entity, project, run_id, key, step",
    "storage": "entity, project, run_id, kind, type, artifact",
}

Runs = Sequence[tuple[Project, str]]
Report = Callable[[str, int], None]
"""Called with the name of each written file or table, and its number of rows."""


def to_folder(home: Home, chosen: Sequence[Project], runs: Runs, folder: Path, kind: str, report: Report) -> None:
    """Write one file per relation, such as `runs.parquet` or `runs.csv`, replacing older ones.

    Only rows of the chosen projects are written, or only of these runs if any are given.
    """
    with opened(home) as connection:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot create {folder}: {error.strerror or error}") from error
        for relation in RELATIONS:
            target = folder / f"{relation}.{kind}"
            report(target.name, _write(connection, target, kind, *_rows(relation, chosen, runs)))


def to_file(
    home: Home, chosen: Sequence[Project], runs: Runs, relation: str, file: Path, kind: str, report: Report
) -> None:
    """Write the rows of one relation, or of a relation of one of the projects, which is named as it is.

    Replaces an older file. Raises UsageError for a relation that there is not, naming the nearest.
    """
    with opened(home) as connection:
        if relation in RELATIONS or relation in DERIVED:
            query = _rows(relation, chosen, runs)
        else:
            known = _wide(connection, chosen) + _key_tables(connection, chosen)
            if relation not in known:
                raise UsageError(f"--relation {relation}: {nearest_of(relation, [*RELATIONS, *DERIVED, *known])}")
            condition, params = scope((), "w", runs)
            query = f"SELECT * FROM {identifier(relation)} AS w WHERE {condition}", params
        report(file.name, _write(connection, file.resolve(), kind, *query))


def relation_of(file: Path, relation: str | None) -> str:
    """The relation to write to a file: as given, else the one that the file is called after. Raises UsageError."""
    if relation is not None:
        return relation
    if file.stem in RELATIONS or file.stem in DERIVED:
        return file.stem
    raise UsageError(f"{file} holds one relation: add --relation NAME, such as runs, history or summary_values")


def _write(connection: DuckDBPyConnection, target: Path, kind: str, query: str, params: Sequence[Any]) -> int:
    """Write the rows of a query to a file in one step, and return their number."""
    options = {"parquet": "FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2", "csv": "FORMAT csv, HEADER"}[kind]
    scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        copied = connection.execute(f"COPY ({query}) TO {literal(scratch)} ({options})", list(params)).fetchall()
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    rows: int = copied[0][0]
    return rows


def to_database(
    home: Home, chosen: Sequence[Project], runs: Runs, file: Path, storage_version: str, report: Report
) -> None:
    """Write one database with a table for each relation, of the same name, and a wide table for each project.

    The file needs no other files, opens in DuckDB `storage_version` and newer, and replaces an older one atomically.
    """
    target = file.resolve()
    scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with opened(home) as connection:
            connection.execute(
                f"ATTACH {literal(scratch)} AS exported (READ_WRITE, STORAGE_VERSION {literal(storage_version)})"
            ).fetchall()
            for relation in RELATIONS:
                _copy_table(connection, relation, *_rows(relation, chosen, runs), report)
            for name in _wide(connection, chosen):
                condition, params = scope((), "w", runs)
                query = f"SELECT * FROM {identifier(name)} AS w WHERE {condition}"
                _copy_table(connection, name, query, params, report)
            connection.execute("DETACH exported").fetchall()
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
        scratch.with_name(f"{scratch.name}.wal").unlink(missing_ok=True)


def _copy_table(connection: DuckDBPyConnection, name: str, query: str, params: Sequence[Any], report: Report) -> None:
    created = connection.execute(f"CREATE TABLE exported.{identifier(name)} AS {query}", list(params)).fetchall()
    report(name, created[0][0])


def _rows(relation: str, chosen: Sequence[Project], runs: Runs) -> tuple[str, list[str]]:
    """SQL for the rows of a relation to export, in order, and its parameters."""
    condition, params = scope(chosen, "t", () if relation in OF_PROJECTS else runs)
    return f"SELECT * FROM main.{relation} AS t WHERE {condition} ORDER BY {(RELATIONS | DERIVED)[relation]}", params


def _wide(connection: DuckDBPyConnection, chosen: Sequence[Project]) -> list[str]:
    """The wide relations of the chosen projects, by name."""
    named = connection.execute("SELECT view_name FROM duckdb_views() WHERE schema_name = 'main'").fetchall()
    tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'").fetchall()
    existing = {row[0] for row in named + tables}
    keys = registered(connection)
    names = dict(zip(keys, unique_names([str(key) for key in keys]), strict=True))
    return [names[key] for key in chosen if names[key] in existing]


def _key_tables(connection: DuckDBPyConnection, chosen: Sequence[Project]) -> list[str]:
    """The relations of keys with W&B Tables of the chosen projects, by name."""
    known = logged_tables.relations(connection)
    return [name for path, name in known.items() if any(path.startswith(f"{project}/tables/") for project in chosen)]


@contextmanager
def opened(home: Home) -> Iterator[DuckDBPyConnection]:
    """Open the published file so that other files can be written. Statements must not contain user text."""
    import duckdb

    try:
        with open_plain(home.published) as connection:
            quiet(connection)
            connection.execute("SET TimeZone = 'UTC'").fetchall()
            yield connection
    except duckdb.Error as error:
        if names_segment(str(error)):
            raise unreadable(home.published, error) from error
        raise StoreError(f"the export failed: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise StoreError(f"the export failed: {error.filename}: {error.strerror or error}") from error
