"""`mirror query`: SQL and run filters over the mirror."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct

from mirror.cli import complete
from mirror.cli.filters import Filter, FilterOption, WhereOption, given_filter
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import warn
from mirror.cli.output import CsvOption, FileOption, FormatOption, JsonOption, Output, choose, write_result, write_text
from mirror.errors import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

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
    filter_: FilterOption = None,
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
    remote: Annotated[
        str | None,
        typer.Option(
            "--remote",
            metavar="URL",
            help="Query the mirror at this address, such as https://host; the token is in MIRROR_TOKEN.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help="Read the token for --remote from a file.", show_default=False
        ),
    ] = None,
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
    source = _Source(given, remote, token_file)
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
        _sql(source, sql, limit, count=count, output=output)
        return
    if not any(value for value in only_runs.values()) and not count and limit is None:
        raise UsageError(
            "nothing to query: give SQL, --where TERM or --filter JSON ('{}' is every run); see `mirror query --help`"
        )
    if compare:
        others = {**only_runs, "--count": count, "--limit": limit}
        if wrong := [name for name, value in others.items() if value and name not in _COMPARABLE]:
            raise UsageError(f"--compare covers every run that the filter finds: leave {wrong[0]} out")
        if remote:
            raise UsageError("--compare asks the W&B server with the mirror's own key: run it on the mirror's machine")
        from mirror.cli.compare import print_comparison

        print_comparison(given, given_filter(filter_, where), project or [], output)
        return
    _runs(
        source,
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


class _Source(Struct, frozen=True):
    """The mirror that is queried: that of the home, or one on another machine."""

    given: Invocation
    remote: str | None
    token_file: Path | None

    @property
    def entity(self) -> str | None:
        """The default entity."""
        return self.given.entity

    @contextmanager
    def connected(self) -> Iterator[DuckDBPyConnection]:
        """Open it for the block. Raises StoreError, CommError, AuthError and UsageError."""
        if self.remote is None:
            if self.token_file is not None:
                raise UsageError("--token-file goes with --remote URL")
            from mirror.snapshot.connection import connected

            with connected(self.given.home) as connection:
                yield connection
            return
        from mirror.peer import Peer, connect

        with connect(Peer.of(self.remote, None, self.given.environ, self.token_file)) as elsewhere:
            yield elsewhere.as_duckdb()


def _sql(source: _Source, text: str, limit: int | None, *, count: bool, output: Output) -> None:
    from dataclasses import replace

    from mirror.query import sql

    text = sys.stdin.read() if text == "-" else text
    with source.connected() as connection:
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
    source: _Source,
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
    from mirror.snapshot.run_query import RunQuery

    columns = [column.strip() for column in select.split(",") if column.strip()] if select else []
    with source.connected() as connection:
        runs = RunQuery.build(
            connection, filter_, order=order, projects=projects, entity=source.entity, deleted=deleted
        )
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
    """Write the filter as JSON in a comment, the same as SQL over the published relations, then a table of clauses."""
    import json

    from mirror.filters.parse import read_json
    from mirror.snapshot.result import Rows

    conditions = read_json(filter_) if isinstance(filter_, str) else filter_ or {}
    if output.format in ("json", "jsonl"):
        write_text(json.dumps({"filter": conditions, **found}, ensure_ascii=False, default=str) + "\n")
        return
    shown = f"-- filter: {json.dumps(conditions, ensure_ascii=False)}"
    sql = found["sql"] + ";" if found["sql"] else f"-- no SQL over the relations: {found['no_sql']}"
    write_text(f"{shown}\n{sql}\n\n")
    clauses = [*found["clauses"], ("all clauses together", found["runs"])]
    write_result(Rows(["clause", "runs"], clauses), Output("table"))
