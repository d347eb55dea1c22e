"""`mirror forget`: removes projects and runs from the mirror, through the daemon if one runs, else in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from mirror.cli import ending
from mirror.cli.asking import confirm
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import say
from mirror.cli.output import CsvOption, FileOption, FormatOption, JsonOption, choose, write_result
from mirror.errors import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from mirror.settings.settings import Settings
    from mirror.sync.targets import Pattern, Target

COLUMNS = ("path", "runs", "history_rows", "only_here", "comes_again")


class _Content(Struct, frozen=True):
    """What would be removed for a path: `only_here` counts runs that the server does not have.

    `comes_again` names what would mirror it again: a setting, or "".
    """

    path: str
    runs: int
    rows: int
    only_here: int
    comes_again: str


def forget(
    context: typer.Context,
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="entity/project or entity/project/run_id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be removed; remove nothing.")] = False,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    file: FileOption = None,
) -> None:
    """Remove a project or a run from the mirror.

    The server is not touched, and neither are files of local runs. What the config still selects is mirrored again by
    the next pass: take it out of `projects` or `local.dirs` first. Goes through the daemon if one runs, and waits for
    a pass that is under way. `mirror flush` pulls something again instead.
    """
    from mirror.sync import targets

    if not dry_run and (format_name or json or csv or file):
        raise UsageError("--format, --json, --csv and -o go with --dry-run")
    output = choose(format_name, json=json, csv=csv, file=file)
    given = invocation(context)
    settings = given.settings()
    patterns = [targets.parse(path, settings.entity) for path in paths]
    contents = _contents(given, settings, patterns)
    if dry_run:
        from mirror.snapshot.result import Rows

        rows = [(one.path, one.runs, one.rows, one.only_here, one.comes_again) for one in contents]
        write_result(Rows(list(COLUMNS), rows), output)
        say("dry run: nothing was removed")
    else:
        if not yes:
            notes = [note for one in contents for note in _notes(given, one)]
            what = ", ".join(f"{one.path} ({_count(one)})" for one in contents)
            confirm(
                "\n".join([*notes, f"Remove {what} from the mirror?"]),
                otherwise="nothing was removed: give --yes to remove without a question, or --dry-run to look first",
            )
        _remove(given, settings, patterns)
        say(f"removed {', '.join(f'{one.path} ({_count(one)})' for one in contents)}; the server was not touched")
    for one in contents:
        if one.comes_again:
            say(_again(given, one))


def _contents(given: Invocation, settings: Settings, patterns: Sequence[Pattern]) -> list[_Content]:
    """Return what the published file has of each path. Raises UsageError for one that is not mirrored."""
    from mirror.snapshot.connection import connected
    from mirror.snapshot.paths import projects
    from mirror.store.records import ProjectKey
    from mirror.sync import removal
    from mirror.sync.targets import Target

    if not given.home.published.exists():
        raise UsageError(f"nothing is mirrored in {given.home.data}")
    with connected(given.home) as connection:
        known = [ProjectKey(one.entity, one.project) for one in projects(connection)]
        chosen = removal.choose(
            patterns, known, lambda project, run_id: _content(connection, settings, Target(project, (run_id,))).runs > 0
        )
        parts = [Target(one.project, (run_id,)) for one in chosen for run_id in one.run_ids]
        whole = [one for one in chosen if not one.run_ids]
        return [_content(connection, settings, target) for target in [*whole, *parts]]


def _content(connection: DuckDBPyConnection, settings: Settings, target: Target) -> _Content:
    """Return what is mirrored of a project, or of one run."""
    from mirror.sync import targets

    condition = "entity = ? AND project = ?" + (" AND run_id = ?" if target.run_ids else "")
    here = [target.project.entity, target.project.project, *target.run_ids]
    local = f"SELECT run_id, on_server, path FROM local_runs WHERE {condition}"
    runs, rows, only_here = connection.execute(
        "SELECT count(*), coalesce(sum(history_rows), 0)::BIGINT, count(*) FILTER (WHERE deleted_at IS NOT NULL OR "
        f"run_id IN (SELECT run_id FROM ({local}) WHERE NOT on_server)) FROM runs WHERE {condition}",
        [*here, *here],
    ).fetchall()[0]
    files = [Path(path) for _, _, path in connection.execute(local, here).fetchall()]
    folders = [Path(folder).expanduser() for folder in settings.local.dirs]
    patterns = [targets.parse(path, settings.entity) for path in settings.projects]
    again = ""
    if any(targets.selects(pattern, target) for pattern in patterns):
        again = "projects"
    elif any(file.is_relative_to(folder) for file in files for folder in folders):
        again = "local.dirs"
    return _Content(target.paths()[0], runs, rows, only_here, again)


def _notes(given: Invocation, one: _Content) -> list[str]:
    """Return what should be known before the question about this path is answered."""
    only = f"{one.path}: {one.only_here:,} of its runs are only in the mirror, since the server does not have them"
    return ([only] if one.only_here else []) + ([_again(given, one)] if one.comes_again else [])


def _again(given: Invocation, one: _Content) -> str:
    return f"{one.path} is selected by `{one.comes_again}` in {given.home.config}, so the next pass mirrors it again"


def _count(one: _Content) -> str:
    runs = f"{one.runs:,} {'run' if one.runs == 1 else 'runs'}, "
    return f"{runs}{one.rows:,} history {'row' if one.rows == 1 else 'rows'}"


def _remove(given: Invocation, settings: Settings, patterns: Sequence[Pattern]) -> None:
    from mirror.control import Control

    control = Control.find(given.home.socket)
    if control is not None:
        control.forget([pattern.path for pattern in patterns])
    else:
        ending.run(_remove_here(given, settings, patterns))


async def _remove_here(given: Invocation, settings: Settings, patterns: Sequence[Pattern]) -> None:
    """Remove in this process, without a daemon."""
    from mirror.sync import removal
    from mirror.sync.session import open_writer

    with open_writer(given.home, settings) as writer:
        for target in await writer.read(lambda store: removal.find(store, patterns)):
            await writer.write(lambda tx, target=target: removal.remove(tx, target))  # type: ignore[misc]
        await writer.maintain()
        await writer.publish()
