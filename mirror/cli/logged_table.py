"""`mirror logged-table`: the rows of a W&B Table that a run logged, or the list of its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli import complete
from mirror.cli.invocation import invocation
from mirror.cli.output import CsvOption, FileOption, FormatOption, JsonOption, choose, write_result
from mirror.errors import QueryError, UsageError

if TYPE_CHECKING:
    from mirror.snapshot.logged_tables import LoggedTable

RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="entity/project/run_id, or a run's id or name alone.", autocompletion=complete.runs
    ),
]


def logged_table(
    ctx: typer.Context,
    run: RunArgument,
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="The key that it was logged under. Default: list all.")
    ] = None,
    step: Annotated[
        int | None, typer.Option("--step", metavar="N", help="The step that it was logged at. Default: the newest.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=0, metavar="N", help="At most N rows.")] = None,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    file: FileOption = None,
) -> None:
    """Print a W&B Table that a run logged with wandb.Table, with typed columns. Without KEY, list its tables.

    Reads the mirror only: sync.files must mirror the content of media/table/*.
    """
    from dataclasses import replace

    from mirror.snapshot import logged_tables
    from mirror.snapshot.connection import connected
    from mirror.snapshot.paths import find_run
    from mirror.snapshot.result import Result

    if key is None and step is not None:
        raise UsageError("--step is for one table: name its KEY")
    output = choose(format_name, json=json, csv=csv, file=file)
    given = invocation(ctx)
    with connected(given.home) as connection:
        project, run_id = find_run(connection, run, given.entity)
        address = (*project, run_id)
        if key is None:
            result = Result(connection, logged_tables.LISTED, address, documents=frozenset([3]))
        else:
            found = logged_tables.find(connection, address, key, step)
            _check_here("/".join(address), found)
            result = Result(connection, found.sql)
        write_result(replace(result, limit=output.limit(limit)), output)


def _check_here(run: str, found: LoggedTable) -> None:
    """Raise QueryError unless every file of the table is here, as Parquet."""
    for piece in found.pieces:
        if piece.parquet_path is not None:
            continue
        what = f"the table {found.key} of {run}"
        if piece.error is not None:
            raise QueryError(f"{what} ({piece.path}) cannot be read: {piece.error}")
        if piece.path is None or "://" in piece.path:
            raise QueryError(
                f"{what} is in an artifact ({piece.path}), which is not mirrored: name it in sync.artifacts"
            )
        raise QueryError(
            f'the content of {what} is not mirrored: set sync.files = ["media/table/*"] and run `mirror sync`'
        )
