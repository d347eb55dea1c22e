"""`mirror table`: means of groups of runs with their intervals, for a paper or a program."""

from __future__ import annotations

from typing import Annotated

import typer

from mirror.cli import complete
from mirror.cli.filters import FilterOption, TermArgument, WhereOption, given_filter
from mirror.cli.invocation import invocation
from mirror.cli.look import PathArgument
from mirror.cli.messages import warn
from mirror.cli.output import CsvOption, FileOption, FormatOption, JsonOption, choose, write_result

PRINTED = ("table", "markdown", "latex")
"""The formats for people, with the mean and its interval in one cell."""


def table(
    ctx: typer.Context,
    path: PathArgument,
    terms: TermArgument = None,
    select: Annotated[
        str,
        typer.Option(
            "--select",
            metavar="COLS",
            help="Columns with numbers: summary.KEY, config.KEY, duration_s, ...; comma-separated.",
            autocompletion=complete.columns,
        ),
    ] = "",
    group_by: Annotated[
        str,
        typer.Option(
            "--group-by",
            metavar="KEY,KEY",
            help="One row per value of these: config.KEY, group, ... Default: one row.",
            autocompletion=complete.group_list,
        ),
    ] = "",
    agg: Annotated[
        str,
        typer.Option("--agg", metavar="A,A", help="Of mean, ci (its interval), std, min, max, median."),
    ] = "mean,ci",
    filter_: FilterOption = None,
    where: WhereOption = None,
    decimals: Annotated[
        int | None,
        typer.Option(
            "--decimals", min=0, max=15, metavar="N", help="Of table, Markdown and LaTeX. Default: by the interval."
        ),
    ] = None,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    file: FileOption = None,
) -> None:
    """Print means of groups of runs with n and 95% confidence interval, as CSV, Markdown, LaTeX or JSON.

    `runs` counts the runs of a group, n those with a number in a column; others do not count. The interval is that of
    Student's t with n - 1 degrees of freedom. Tables show both as 0.813 ± 0.012, other formats in columns.
    """
    from mirror.query import group_table
    from mirror.snapshot.connection import connected
    from mirror.snapshot.run_query import RunQuery

    output = choose(format_name, json=json, csv=csv, file=file)
    given = invocation(ctx)
    chosen = given_filter(filter_, [*(terms or ()), *(where or ())])
    with connected(given.home) as connection:
        query = RunQuery.build(connection, chosen, projects=[path], entity=given.entity)
        for warning in query.warnings():
            warn(warning)
        made = group_table.table(query, _names(group_by), _names(select), _names(agg), warn=warn)
        write_result(made.printed(decimals) if output.format in PRINTED else made.rows(), output)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
