"""`mirror storage`: what takes space on the server and in the mirror."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from mirror.cli import complete
from mirror.cli.invocation import invocation
from mirror.cli.messages import say
from mirror.cli.output import CsvOption, FileOption, FormatOption, JsonOption, choose, write_result
from mirror.cli.sizes import size_text
from mirror.errors import UsageError


def storage(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="entity/project, E/* or entity/project/run_id. Default: everything.",
            autocompletion=complete.projects,
        ),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="A,A", help="One row per value of these: project, run, kind, type, artifact.")
    ] = "project,kind,type",
    twice: Annotated[
        bool, typer.Option("--twice", help="Instead: content that several files have, and what that saves.")
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=0, metavar="N", help="At most N rows.")] = None,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    file: FileOption = None,
) -> None:
    """Show what takes space on the server and in the mirror, the largest first.

    `server_bytes` is what the server lists of files and artifacts, if sync.files and sync.artifacts mirror their lists;
    `mirrored_bytes` what is here of it; `stored_bytes` what it takes on the disk, where equal content is stored once.
    """
    from mirror.snapshot import storage as sizes
    from mirror.snapshot.connection import connected
    from mirror.snapshot.paths import find_projects, find_run
    from mirror.snapshot.result import Result

    groups = list(dict.fromkeys(group.strip() for group in by.split(",") if group.strip()))
    unknown = [group for group in groups if group not in sizes.GROUPS]
    if unknown or not groups:
        raise UsageError(f"--by {by}: use one or several of {', '.join(sizes.GROUPS)}")
    output = choose(format_name, json=json, csv=csv, file=file)
    given = invocation(ctx)
    named = paths or []
    with connected(given.home) as connection:
        runs = [find_run(connection, path, given.entity) for path in named if path.strip("/").count("/") > 1]
        whole = [path for path in named if path.strip("/").count("/") <= 1]
        chosen = find_projects(connection, whole, given.entity) if whole else []
        query = sizes.twice(chosen, runs) if twice else sizes.by(groups, chosen, runs)
        write_result(replace(Result(connection, *query), limit=output.limit(limit)), output)
        found = sizes.totals(connection)
    unnamed = f", {size_text(found.unnamed_bytes)} of it named by nothing (`mirror gc`)" if found.unnamed_bytes else ""
    saved = f"; equal content that is stored once saves {size_text(found.saved_bytes)}" if found.saved_bytes else ""
    home = given.home
    say(
        f"the whole mirror: {size_text(_on_disk([home.published, home.state]))} of tables, "
        f"{size_text(_on_disk(home.history.rglob('*.parquet')))} of history segments, "
        f"{size_text(found.bytes)} of content{unnamed}{saved}"
    )


def _on_disk(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.exists())
