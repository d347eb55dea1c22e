"""`mirror export`: files, databases and lakes that do not need the mirror."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli import complete
from mirror.cli.filters import WhereOption, given_filter
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import say
from mirror.errors import UsageError

if TYPE_CHECKING:
    from mirror.lake.target import LakeTarget
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
        typer.Option("--lake", metavar="DIR", help="Keep Delta tables up to date in DIR, s3://, gs:// or az://."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep", metavar="TIME", help="With --lake: how long old versions stay readable. Default: lake.keep, 7d."
        ),
    ] = None,
    wandb: Annotated[
        Path | None,
        typer.Option("--wandb", metavar="DIR", help="Write offline run folders, which `wandb sync` uploads anywhere."),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option("--mlflow", metavar="URI", help="Write runs to an MLflow server: parameters, metrics, artifacts."),
    ] = None,
    filter_: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="With --wandb or --mlflow: only runs that match.")
    ] = None,
    where: WhereOption = None,
    keep_sweeps: Annotated[
        bool, typer.Option("--keep-sweeps", help="With --wandb: for a server that has the same sweeps.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --wandb or --mlflow: only print what would be written.")
    ] = False,
) -> None:
    """Write runs, history, config and summary values to files that do not need the mirror.

    A lake has a Delta table for each relation and holds whole projects. Each call writes what is new since the last
    one, then _snapshot.json, which names the versions that belong together. It needs pip install 'wandb-mirror[lake]'.

    --wandb moves runs to another W&B server, entity or project, --mlflow to MLflow. Both print what will not arrive.
    The next call of --mlflow writes what is new.
    """
    given = invocation(ctx)
    if wandb is not None or mlflow is not None:
        from mirror.cli.export_runs import to_folders, to_mlflow

        if (wandb and mlflow) or folder or database or lake or relation or format_name or keep:
            name = "--wandb" if wandb is not None else "--mlflow"
            raise UsageError(f"{name} is an export of its own: leave the other destinations out")
        if mlflow is not None and keep_sweeps:
            raise UsageError("--keep-sweeps goes with --wandb")
        selected = (*_scope(given, paths or []), given_filter(filter_, where))
        if wandb is not None:
            to_folders(given, selected, wandb, keep_sweeps, dry_run)
        elif mlflow is not None:
            to_mlflow(given, selected, mlflow, dry_run)
        return
    if filter_ is not None or where or keep_sweeps or dry_run:
        raise UsageError("--filter, --where and --dry-run go with --wandb or --mlflow, --keep-sweeps with --wandb")
    from mirror.lake import target as lake_target
    from mirror.query import export as exports

    kind = format_name or "parquet"
    if kind not in ("parquet", "csv"):
        raise UsageError(f'unknown format "{format_name}": known: parquet, csv')
    if folder is None and database is None and lake is None:
        raise UsageError("no destination: give -o DIR or FILE, --duckdb FILE, --lake DIR, --wandb DIR or --mlflow URI")
    if keep is not None and lake is None:
        raise UsageError("--keep goes with --lake")
    single = folder is not None and folder.suffix.lower() in (".parquet", ".csv") and not folder.is_dir()
    if relation is not None and not single:
        raise UsageError("--relation goes with -o FILE.parquet or FILE.csv")
    if single and folder is not None:
        if format_name not in (None, folder.suffix.lower()[1:]):
            raise UsageError(f"{folder} is called {folder.suffix}, and --format says {format_name}: give one of them")
        kind, relation = folder.suffix.lower()[1:], exports.relation_of(folder, relation)
    target = lake_target.find(lake) if lake is not None else None
    chosen, runs = _scope(given, paths or [])
    if target is not None:
        if runs:
            raise UsageError("a lake holds whole projects: name entity/project, not a run")
        _lake(given, chosen, target, keep)
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


def _lake(given: Invocation, chosen: Sequence[Project], target: LakeTarget, keep: str | None) -> None:
    from mirror.lake.export import export, kept_for

    stay = kept_for(keep, "--keep") if keep is not None else timedelta(seconds=given.settings().lake.keep)
    done = export(given.home, chosen, target, keep=stay)
    if done.superseded:
        say(f"{target.name}: another export wrote a newer state meanwhile; nothing is left to do")
        return
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
