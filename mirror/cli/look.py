"""`mirror projects`, `runs`, `keys` and `diff`: tables to look around in the mirror."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirror.cli import complete
from mirror.cli.filters import FilterOption, TermArgument, given_filter
from mirror.cli.invocation import invocation
from mirror.cli.messages import say, warn
from mirror.cli.output import CsvOption, FileOption, FormatOption, JsonOption, Output, choose, write_result
from mirror.errors import QueryError, UsageError

if TYPE_CHECKING:
    from mirror.snapshot.run_query import RunQuery

_BRIEF = ["name", "run_id", "state", "created_at"]
_WIDTH = 62
"""Columns of a terminal that the brief columns of runs need; each key gets _EACH more."""
_EACH = 12

PathArgument = Annotated[
    str, typer.Argument(metavar="PATH", help="entity/project, or entity/*.", autocompletion=complete.projects)
]


def projects(
    ctx: typer.Context,
    patterns: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...", help="entity/project, or entity/*. Default: all.", autocompletion=complete.projects
        ),
    ] = None,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    file: FileOption = None,
) -> None:
    """List the mirrored projects: their runs, history rows and last sync.

    `lag_s` is how many seconds ago the last complete sync ended. `mirror status` shows errors and the daemon as well.
    """
    from mirror.query import status
    from mirror.snapshot.connection import connected
    from mirror.snapshot.paths import find_projects
    from mirror.snapshot.result import Rows

    output = choose(format_name, json=json, csv=csv, file=file)
    given = invocation(ctx)
    with connected(given.home) as connection:
        chosen = {str(key) for key in find_projects(connection, patterns, given.entity)} if patterns else None
        found = [one for one in status.projects(connection) if chosen is None or one["project"] in chosen]
    names = ["project", "runs", "running", "history_rows", "last_success_at", "lag_s", "last_error"]
    rows = [tuple(_plain(one[name]) for name in names) for one in found]
    write_result(Rows(names, rows), output)


def runs(
    ctx: typer.Context,
    path: PathArgument,
    terms: TermArgument = None,
    filter_: FilterOption = None,
    select: Annotated[
        str | None,
        typer.Option(
            "--select",
            metavar="COLS",
            help="Columns of runs, config.KEY, summary.KEY; comma-separated.",
            autocompletion=complete.columns,
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            "--order", metavar="KEY", help='Such as "-summary.acc". Default: newest.', autocompletion=complete.order
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=0, metavar="N", help="At most N rows.")] = None,
    count: Annotated[bool, typer.Option("--count", help="Print only the number of runs.")] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Print the filter as JSON and SQL, and how many runs each term matches."),
    ] = False,
    deleted: Annotated[bool, typer.Option("--deleted", help="Include deleted runs.")] = False,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    file: FileOption = None,
) -> None:
    """List the runs of a project, those that match all terms if any are given.

    A term is KEY OP VALUE in one word, as in state=finished, 'config.lr<0.01', 'created_at>7d' or name~^deep; quote <
    and > for the shell. Tables show the config and summary values in which the runs differ; other formats every column.
    """
    from mirror.cli.query import write_count, write_explanation
    from mirror.snapshot.connection import connected
    from mirror.snapshot.run_query import RunQuery

    output = choose(format_name, json=json, csv=csv, file=file)
    given = invocation(ctx)
    if any(sign in path for sign in "=<>~{"):
        raise UsageError(f"which project? give it before the terms, as in `mirror runs team/vision {path!r}`")
    chosen = given_filter(filter_, terms)
    columns = [column.strip() for column in select.split(",") if column.strip()] if select else []
    with connected(given.home) as connection:
        query = RunQuery.build(connection, chosen, order=order, projects=[path], entity=given.entity, deleted=deleted)
        for warning in [*query.warnings(), *query.unknown_columns(columns)]:
            warn(warning)
        if explain:
            write_explanation(chosen, query.explain(), output)
        elif count:
            write_count(query.count(), output)
        else:
            if not columns and output.format in ("table", "markdown"):
                columns = _telling(query, output)
            write_result(query.rows(columns, limit=output.limit(limit)), output)


def keys(
    ctx: typer.Context,
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", help="entity/project, entity/* or a run.", autocompletion=complete.projects),
    ],
    globs: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="Only these keys or globs, such as 'config.*'.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=0, metavar="N", help="At most N rows.")] = None,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    file: FileOption = None,
) -> None:
    """List the keys of config, summary and history: type, number of runs, range, last seen.

    History keys are shown as they are, the others as config.KEY and summary.KEY. `distinct` counts different values,
    `last_seen` is the newest heartbeat of a run that has the key.
    """
    from mirror.query import key_table
    from mirror.query.run_page import brief
    from mirror.snapshot.connection import connected
    from mirror.snapshot.paths import find_projects, find_run

    output = choose(format_name, json=json, csv=csv, file=file)
    given = invocation(ctx)
    with connected(given.home) as connection:
        try:
            chosen, only = find_projects(connection, [path], given.entity), []
        except QueryError:
            if path.strip("/").count("/") < 2:
                raise
            run = find_run(connection, path, given.entity)
            chosen, only = [run[0]], [run]
        table = key_table.table(connection, chosen, only, globs or ())
        if output.format in ("table", "markdown"):
            table = replace(table, rows=[tuple(map(brief, row)) for row in table.rows])
        write_result(replace(table, limit=output.limit(limit)), output)


def diff(
    ctx: typer.Context,
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...", help="entity/project/run_id, or a run's id or name.", autocompletion=complete.runs
        ),
    ],
    equal: Annotated[bool, typer.Option("--all", help="Also show what does not differ.")] = False,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    file: FileOption = None,
) -> None:
    """Show in which fields, config values and summary values runs differ.

    One row per difference, one column per run. A value that a run lacks is empty, in a table ∅.
    """
    from mirror.query import differences
    from mirror.snapshot.connection import connected
    from mirror.snapshot.paths import find_run

    output = choose(format_name, json=json, csv=csv, file=file)
    given = invocation(ctx)
    with connected(given.home) as connection:
        found = list(dict.fromkeys(find_run(connection, run, given.entity) for run in runs))
        if len(found) < 2:
            raise UsageError("give at least two different runs to compare")
        table = differences.table(connection, found, equal=equal)
        write_result(table, output)
    if not table.rows:
        say("the runs do not differ in fields, config or summary")


def _telling(query: RunQuery, output: Output) -> list[str]:
    """The columns of a table of these runs: what they are called, and the keys in which they differ."""
    from mirror.query import differing

    project = ["entity", "project"] if query.several_projects else []
    first = query.rows(["entity", "project", "run_id"], limit=differing.LOOKED_AT).texts()
    addresses: Sequence[Any] = [row for row in first if None not in row]
    most = differing.MOST_EACH
    if output.terminal:
        most = max(1, min(most, (shutil.get_terminal_size().columns - _WIDTH) // (2 * _EACH)))
    asked = [f"{doc}.{key}" for doc, key in query.compiled.keys]
    telling = differing.keys(query.connection, addresses, most)
    return [*project, *_BRIEF, *dict.fromkeys([*asked, *telling])]


def _plain(value: Any) -> Any:
    """Times to the second, and lags to a tenth of one."""
    from datetime import datetime

    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return round(value, 1) if isinstance(value, float) else value
