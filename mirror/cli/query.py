"""`mirror query`, `mirror history` and `mirror export`: the commands that read the mirror."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirror.cli import complete
from mirror.cli.filters import Filter, WhereOption, given_filter
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import say, warn
from mirror.cli.output import CsvOption, FileOption, FormatOption, JsonOption, Output, choose, write_result, write_text
from mirror.errors import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from mirror.query.lake_target import LakeTarget
    from mirror.query.runs_table import Named
    from mirror.snapshot.paths import Project

_COMPARABLE = ("--filter", "--where", "--project", "--compare")


def query(
    ctx: typer.Context,
    sql: Annotated[
        str | None,
        typer.Argument(metavar="[SQL]", show_default=False, help="One read-only SQL statement, or - for stdin."),
    ] = None,
    script: Annotated[
        Path | None, typer.Option("-f", "--file", metavar="FILE", help="Read the SQL from a file.", show_default=False)
    ] = None,
    filter_: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="A Mongo-style run filter, as in wandb.Api().runs().")
    ] = None,
    where: WhereOption = None,
    project: Annotated[
        list[str] | None,
        typer.Option(
            "--project", metavar="E/P", help="Only this project, or E/*. Repeatable.", autocompletion=complete.projects
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            "--order",
            metavar="KEY",
            help='Such as "-created_at" or "+config.lr,-summary.acc".',
            autocompletion=complete.order,
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=0, metavar="N", help="At most N rows.")] = None,
    select: Annotated[
        str | None,
        typer.Option(
            "--select",
            metavar="COLS",
            help="Columns of runs, config.KEY, summary.KEY; comma-separated.",
            autocompletion=complete.columns,
        ),
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Print only the number of rows.")] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Print the filter as JSON and as SQL, and how many runs each clause matches."),
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also run the filter on the server; print the runs that differ, and why.")
    ] = False,
    deleted: Annotated[bool, typer.Option("--deleted", help="Include deleted runs.")] = False,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    file: FileOption = None,
) -> None:
    """Query the mirror with SQL, or its runs with a filter.

    SQL can read runs, history, config_values and the other relations of mirror.duckdb. Without SQL, runs that are not
    deleted are listed, those that match --filter and --where if given. Formats other than table and markdown have every
    column of runs; in JSON, config and summary are objects, and NaN and infinities are strings.
    """
    output = choose(format_name, json=json, csv=csv, file=file)
    given = invocation(ctx)
    only_runs = {
        "--filter": filter_,
        "--where": where,
        "--project": project,
        "--order": order,
        "--select": select,
        "--explain": explain,
        "--compare": compare,
        "--deleted": deleted,
    }
    if script is not None:
        if sql is not None:
            raise UsageError("give SQL or --file, not both")
        sql = _script(script)
    if sql is not None:
        if wrong := [name for name, value in only_runs.items() if value]:
            raise UsageError(f"{wrong[0]} is for run filters: put it into the SQL instead")
        _sql(given, sql, limit, count=count, output=output)
        return
    if not any(value for value in only_runs.values()) and not count and limit is None:
        raise UsageError(
            "nothing to query: give SQL, --where TERM or --filter JSON ('{}' is every run); see `mirror query --help`"
        )
    if compare:
        others = {**only_runs, "--count": count, "--limit": limit}
        if wrong := [name for name, value in others.items() if value and name not in _COMPARABLE]:
            raise UsageError(f"--compare covers every run that the filter finds: leave {wrong[0]} out")
        from mirror.cli.compare import print_comparison

        print_comparison(given, given_filter(filter_, where), project or [], output)
        return
    _runs(
        given,
        given_filter(filter_, where),
        output,
        projects=project or [],
        order=order,
        deleted=deleted,
        limit=limit,
        select=select,
        count=count,
        explain=explain,
    )


def history(
    ctx: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...", help="entity/project/run_id, or a run's id or name alone.", autocompletion=complete.runs
        ),
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option(
            "--keys", metavar="K,K", help="Keys or globs, comma-separated (default: all).", autocompletion=complete.keys
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, metavar="N", help="N evenly spaced rows (default: all).")
    ] = None,
    x: Annotated[
        str | None,
        typer.Option(
            "--x",
            metavar="KEY",
            help="Key of the x axis, which orders the rows; none: only the step.",
            autocompletion=complete.axis,
        ),
    ] = None,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", metavar="JSON", help="Instead of RUN: every run of --project that matches."),
    ] = None,
    where: WhereOption = None,
    project: Annotated[
        str | None,
        typer.Option(
            "--project",
            metavar="E/P",
            help="Instead of RUN: its runs, or those of --where.",
            autocompletion=complete.projects,
        ),
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="One row per step, one column per run.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=0, metavar="N", help="At most N rows.")] = None,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    file: FileOption = None,
) -> None:
    """Print the complete history of runs: one row per step, one column per key.

    Keys that only held numbers are numeric; others are text. If define_metric gave one of --keys an x axis, its column
    follows the step: the value at the step, else the last one before it. Without --keys, values are as logged.

    Several runs stand below each other, with columns run_id and name, or with --wide side by side.
    """
    from dataclasses import replace

    from mirror.query import run_table, runs_table
    from mirror.snapshot.connection import connected

    output = choose(format_name, json=json, csv=csv, file=file)
    given = invocation(ctx)
    key_globs = [key.strip() for key in keys.split(",") if key.strip()] if keys else []
    chosen = given_filter(filter_, where)
    if bool(runs) == (project is not None) or (chosen is not None and project is None):
        raise UsageError("which runs? name them, or give --project E/P, and --where TERM for some of its runs")
    if wide and x is not None:
        raise UsageError("--wide has one row per step: leave --x out")
    with connected(given.home) as connection:
        found = _named_runs(given, connection, runs or [], project, chosen)
        if wide:
            result = runs_table.beside(connection, found, key_globs, samples=samples, warn=warn)
        elif project is None and len(found) == 1:
            one = found[0]
            result = run_table.table(connection, one.project, one.run_id, key_globs, samples=samples, x=x, warn=warn)
        else:
            result = runs_table.below(connection, found, key_globs, samples=samples, x=x, warn=warn)
        write_result(replace(result, limit=output.limit(limit)), output)


def _named_runs(
    given: Invocation, connection: DuckDBPyConnection, runs: Sequence[str], project: str | None, filter_: Filter
) -> list[Named]:
    """The runs of these paths, else those of a project that match, the oldest first."""
    from mirror.query.runs_table import Named
    from mirror.snapshot import run_rows
    from mirror.snapshot.paths import Project, find_run
    from mirror.snapshot.run_query import RunQuery

    if project is None:
        paths = list(dict.fromkeys(find_run(connection, run, given.entity) for run in runs))
        rids = {found[0]: path for path in paths if (found := run_rows.find(connection, *path))}
    else:
        query = RunQuery.build(connection, filter_, order="+created_at", projects=[project], entity=given.entity)
        for warning in query.warnings():
            warn(warning)
        rows = query.rows(["entity", "project", "run_id"]).texts()
        paths = [(Project(entity or "", name or ""), run_id or "") for entity, name, run_id in rows]
        rids = dict(zip(query.rids(), paths, strict=True))
    if not rids:
        raise UsageError("no run matches")
    names = {rid: name for rid, _, name in run_rows.named(connection, list(rids))}
    return [Named(rid, path[0], path[1], names[rid]) for rid, path in rids.items()]


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


def _sql(given: Invocation, text: str, limit: int | None, *, count: bool, output: Output) -> None:
    from dataclasses import replace

    from mirror.query import sql
    from mirror.snapshot.connection import connected

    text = sys.stdin.read() if text == "-" else text
    with connected(given.home) as connection:
        result = sql.select(connection, text)
        if count:
            write_count(result.count(), output)
        else:
            write_result(replace(result, limit=output.limit(limit)), output)


def _script(path: Path) -> str:
    """Return the SQL in a file; `-` is stdin. Raises UsageError if it cannot be read."""
    if str(path) == "-":
        return "-"
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8, so it is not SQL") from error


def _runs(
    given: Invocation,
    filter_: Filter,
    output: Output,
    *,
    projects: Sequence[str],
    order: str | None,
    deleted: bool,
    limit: int | None,
    select: str | None,
    count: bool,
    explain: bool,
) -> None:
    from mirror.snapshot.connection import connected
    from mirror.snapshot.run_query import RunQuery

    columns = [column.strip() for column in select.split(",") if column.strip()] if select else []
    with connected(given.home) as connection:
        runs = RunQuery.build(connection, filter_, order=order, projects=projects, entity=given.entity, deleted=deleted)
        for warning in [*runs.warnings(), *runs.unknown_columns(columns)]:
            warn(warning)
        if explain:
            write_explanation(filter_, runs.explain(), output)
        elif count:
            write_count(runs.count(), output)
        else:
            brief = output.format in ("table", "markdown")
            write_result(runs.rows(columns, brief=brief, limit=output.limit(limit)), output)


def write_count(rows: int, output: Output) -> None:
    """Write only the number, unless a format was given."""
    from mirror.snapshot.result import Rows

    if output.named:
        write_result(Rows(["count"], [(rows,)]), output)
    else:
        write_text(f"{rows}\n")


def write_explanation(filter_: Filter, found: dict[str, Any], output: Output) -> None:
    """Write the filter as JSON and the SQL's parameters as comments, the SQL, then a table of clauses."""
    import json

    from mirror.filters.parse import read_json
    from mirror.snapshot.result import Rows

    conditions = read_json(filter_) if isinstance(filter_, str) else filter_ or {}
    if output.format in ("json", "jsonl"):
        write_text(json.dumps({"filter": conditions, **found}, ensure_ascii=False, default=str) + "\n")
        return
    parameters = [
        f"-- parameter {number}: {json.dumps(value, ensure_ascii=False, default=str)}"
        for number, value in enumerate(found["params"], 1)
    ]
    shown = f"-- filter: {json.dumps(conditions, ensure_ascii=False)}"
    write_text("\n".join([shown, found["sql"], *parameters, "", ""]))
    clauses = [*found["clauses"], ("all clauses together", found["runs"])]
    write_result(Rows(["clause", "runs"], clauses), Output("table"))


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
