"""`mirror history`: the logged values of one run or of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli import complete
from mirror.cli.filters import Filter, InsteadOfRunOption, RunsArgument, WhereOption, given_filter
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import warn
from mirror.cli.output import CsvOption, FileOption, FormatOption, JsonOption, choose, write_result
from mirror.errors import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from mirror.query.runs_table import Named


def history(
    ctx: typer.Context,
    runs: RunsArgument = None,
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
    filter_: InsteadOfRunOption = None,
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
