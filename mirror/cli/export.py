"""`mirror export`: files, databases and lakes that do not need the mirror."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli import complete
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import say
from mirror.errors import UsageError

if TYPE_CHECKING:
    from mirror.query.lake_target import LakeTarget
    from mirror.snapshot.paths import Project


def export(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="entity/project, E/* or entity/project/run_id. Default: everything.",
            autocompletion=complete.projects,
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PATH", help="A folder for all relations, or FILE.parquet or FILE.csv."),
    ] = None,
    relation: Annotated[
        str | None,
        typer.Option("--relation", metavar="NAME", help="The relation of -o FILE. Default: as the file is called."),
    ] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="Of -o: parquet or csv. Default: parquet.")
    ] = None,
    database: Annotated[
        Path | None, typer.Option("--duckdb", metavar="FILE", help="Write one self-contained database of plain tables.")
    ] = None,
    lake: Annotated[
        str | None,
        typer.Option("--lake", metavar="DIR", help="Keep Parquet files up to date in DIR or s3://bucket/prefix."),
    ] = None,
) -> None:
    """Write runs, history, config and summary values to files that do not need the mirror.

    A lake is kept up to date: each call writes what is new since the last one, then manifest.json, which lists the
    files that belong together. A lake holds whole projects.
    """
    from mirror.query import export as exports
    from mirror.query import lake_target

    kind = format_name or "parquet"
    if kind not in ("parquet", "csv"):
        raise UsageError(f'unknown format "{format_name}": known: parquet, csv')
    if folder is None and database is None and lake is None:
        raise UsageError("no destination: give -o DIR or FILE, --duckdb FILE or --lake DIR")
    single = folder is not None and folder.suffix.lower() in (".parquet", ".csv") and not folder.is_dir()
    if relation is not None and not single:
        raise UsageError("--relation goes with -o FILE.parquet or FILE.csv")
    if single and folder is not None:
        if format_name not in (None, folder.suffix.lower()[1:]):
            raise UsageError(f"{folder} is called {folder.suffix}, and --format says {format_name}: give one of them")
        kind, relation = folder.suffix.lower()[1:], exports.relation_of(folder, relation)
    given = invocation(ctx)
    target = lake_target.find(lake) if lake is not None else None
    chosen, runs = _scope(given, paths or [])
    if target is not None:
        if runs:
            raise UsageError("a lake holds whole projects: name entity/project, not a run")
        _lake(given, chosen, target)
    if folder is not None:
        if relation is not None:
            exports.to_file(given.home, chosen, runs, relation, folder, kind, _report_rows)
        else:
            exports.to_folder(given.home, chosen, runs, folder, kind, _report_rows)
        say(f"exported to {folder}")
    if database is not None:
        version = given.settings().publish.storage_version
        exports.to_database(given.home, chosen, runs, database, version, _report_rows)
        say(f"exported to {database}")


def _lake(given: Invocation, chosen: Sequence[Project], target: LakeTarget) -> None:
    from mirror.query import lake

    done = lake.export(given.home, chosen, target)
    say(
        f"{target.name}: {done.rows:,} rows, {done.written} files written ({done.bytes / 1e6:,.1f} MB), "
        f"{done.kept} unchanged, {done.deleted} deleted"
    )


def _report_rows(name: str, rows: int) -> None:
    say(f"  {name}: {rows:,} {'row' if rows == 1 else 'rows'}")


def _scope(given: Invocation, paths: Sequence[str]) -> tuple[list[Project], list[tuple[Project, str]]]:
    """Return the projects, and the runs if the paths name runs. Raises UsageError for a mix of both."""
    from mirror.snapshot.connection import connected
    from mirror.snapshot.paths import find_projects, find_run, projects

    with connected(given.home) as connection:
        runs = [path for path in paths if path.strip("/").count("/") >= 2]
        whole = [path for path in paths if path not in runs]
        if runs and whole:
            raise UsageError(f"export projects or runs, not both: {whole[0]} and {runs[0]}")
        if found := [find_run(connection, path, given.entity) for path in runs]:
            return list(dict.fromkeys(project for project, _ in found)), found
        return (find_projects(connection, whole, given.entity) if whole else projects(connection)), []
