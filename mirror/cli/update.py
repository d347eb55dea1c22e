"""`mirror update`: changes runs on the server, then in the mirror."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirror.cli.filters import (
    Filter,
    FilteredProjectOption,
    InsteadOfRunOption,
    RunsArgument,
    WhereOption,
    given_filter,
)
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import say, warn
from mirror.cli.output import write_text
from mirror.errors import MirrorError, UsageError

if TYPE_CHECKING:
    from mirror.remote.mutations import Edit
    from mirror.snapshot.snapshot import Address, Snapshot


def update(
    ctx: typer.Context,
    runs: RunsArgument = None,
    filter_: InsteadOfRunOption = None,
    where: WhereOption = None,
    project: FilteredProjectOption = None,
    name: Annotated[str | None, typer.Option("--name", help="The display name.")] = None,
    notes: Annotated[str | None, typer.Option("--notes", help='Notes; "" clears them.')] = None,
    description: Annotated[str | None, typer.Option("--description", help='The description; "" clears it.')] = None,
    add_tag: Annotated[
        list[str] | None, typer.Option("--add-tag", metavar="TAG", help="Add a tag. Repeatable.")
    ] = None,
    remove_tag: Annotated[
        list[str] | None, typer.Option("--remove-tag", metavar="TAG", help="Remove a tag. Repeatable.")
    ] = None,
    group: Annotated[str | None, typer.Option("--group", help="The run's group.")] = None,
    job_type: Annotated[str | None, typer.Option("--job-type", help="The kind of job, such as train.")] = None,
    config: Annotated[
        list[str] | None, typer.Option("--config", metavar="K=V", help="A config value: JSON, else text. Repeatable.")
    ] = None,
    summary: Annotated[
        list[str] | None, typer.Option("--summary", metavar="K=V", help="A summary value: JSON, else text. Repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would change, compared with the mirror; write nothing.")
    ] = False,
) -> None:
    """Change runs on the server, then in the mirror.

    Only the given fields are sent; all others stay as they are on the server. K may be a path such as optimizer.lr. If
    the server refuses a run, the runs before it stay changed, and the mirror shows these changes.
    """
    from mirror.remote.mutations import Edit

    edit = Edit(
        name=name,
        notes=notes,
        description=description,
        group=group,
        job_type=job_type,
        add_tags=tuple(add_tag or ()),
        remove_tags=tuple(remove_tag or ()),
        config_paths=dict(_pair(text, "--config") for text in config or ()),
        summary_paths=dict(_pair(text, "--summary") for text in summary or ()),
    )
    if not edit:
        raise UsageError(
            "nothing to change: give --name, --notes, --add-tag, --config K=V, ...; see `mirror update --help`"
        )
    given = invocation(ctx)
    snapshot, addresses = _chosen(given, runs or [], given_filter(filter_, where), project)
    if not addresses:
        say("no run matches")
    elif dry_run:
        _show(snapshot, addresses, edit)
        say(f"dry run: nothing was written; checked {_count(addresses)}, changes are listed above")
    else:
        _write(given, addresses, edit)


def _pair(text: str, option: str) -> tuple[str, Any]:
    """Split K=V into key and value; the value is JSON, else text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"{option} {text!r}: use KEY=VALUE")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value


def _chosen(
    given: Invocation, runs: Sequence[str], filter_: Filter, project: str | None
) -> tuple[Snapshot, list[Address]]:
    from mirror.snapshot.snapshot import Snapshot

    if bool(runs) == (filter_ is not None):
        raise UsageError("which runs? name them, or give --where TERM or --filter JSON with --project E/P")
    if (filter_ is None) != (project is None):
        raise UsageError("--filter and --where need --project, and --project needs one of them")
    snapshot = Snapshot(given.home)
    if filter_ is None:
        found = [snapshot.address(run, given.entity, deleted=False) for run in runs]
        return snapshot, list(dict.fromkeys(found))
    assert project is not None
    matching, warnings = snapshot.matching(
        snapshot.project(project, given.entity), filter_, "+created_at", deleted=False
    )
    for warning in warnings:
        warn(warning)
    return snapshot, matching


def _write(given: Invocation, addresses: Sequence[Address], edit: Edit) -> None:
    """Write the runs one by one, then pull them into the mirror, also when a later one is refused."""
    from mirror.api import Session, edits

    session = Session(given.home, given.environ)
    written: list[Address] = []
    try:
        edits.write(session, addresses, edit, written.append)
    except MirrorError as error:
        if written:
            say(f"{len(written)} of {len(addresses)} runs were changed before this one")
            session.pull_written(written)
        raise error from None
    session.pull_written(written)
    for address in written:
        say(f"updated {address}")


def _show(snapshot: Snapshot, addresses: Sequence[Address], edit: Edit) -> None:
    """Print one line per change: run, field, old value, new value."""
    from mirror.api.edits import preview

    for address in addresses:
        lines = [f"{address}\t{field}\t{old} -> {new}\n" for field, old, new in preview(snapshot, address, edit)]
        write_text("".join(lines))


def _count(addresses: Sequence[Address]) -> str:
    return f"{len(addresses)} {'run' if len(addresses) == 1 else 'runs'}"
