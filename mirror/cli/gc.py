"""`mirror gc`: deletes file content that nothing names, through the daemon if one runs, else in this process."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import asdict

from mirror.cli import ending
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import say
from mirror.cli.output import CsvOption, FileOption, FormatOption, JsonOption, choose, write_result
from mirror.errors import UsageError

if TYPE_CHECKING:
    from mirror.store.garbage import Garbage

DEFAULT_GRACE = "24h"


def gc(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be deleted; delete nothing.")] = False,
    grace: Annotated[
        str, typer.Option("--grace", metavar="TIME", help="Keep what nothing has named for less than this, such as 0s.")
    ] = DEFAULT_GRACE,
    format_name: FormatOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    file: FileOption = None,
) -> None:
    """Delete file content that no run names any more.

    Content is named by the files of runs; those of runs that were deleted on the server stay until `mirror forget`.
    The daemon does the same by itself. Scripts that still read an older copy of the mirror have the grace period.
    """
    from mirror.settings.values import Impossible, seconds

    if not dry_run and (format_name or json or csv or file):
        raise UsageError("--format, --json, --csv and -o go with --dry-run")
    output = choose(format_name, json=json, csv=csv, file=file)
    try:
        kept_for = seconds(grace)
    except Impossible as error:
        raise UsageError(f"--grace {error}") from None
    given = invocation(context)
    if not given.home.published.exists():
        raise UsageError(f"nothing is mirrored in {given.home.data}")
    found = _collect(given, kept_for, dry_run=dry_run)
    if dry_run:
        from mirror.snapshot.result import Rows

        rows = [("to delete", found.deleted, found.deleted_bytes), ("kept for now", found.kept, found.kept_bytes)]
        write_result(Rows(["what", "files", "bytes"], rows), output)
        say("dry run: nothing was deleted")
        return
    later = f"; {_count(found.kept, found.kept_bytes)} named by nothing since less than {grace}" if found.kept else ""
    done = f"deleted {_count(found.deleted, found.deleted_bytes)}" if found.deleted else "nothing to delete"
    say(f"{done}{later}")


def _count(files: int, size: int) -> str:
    return f"{files:,} {'file' if files == 1 else 'files'} ({size / 1e6:,.1f} MB)"


def _collect(given: Invocation, grace: float, *, dry_run: bool) -> Garbage:
    from mirror.control import Control
    from mirror.store.garbage import Garbage

    control = Control.find(given.home.socket)
    if control is not None:
        answer = control.collect(grace, dry_run=dry_run)
        return Garbage(**{name: answer[name] for name in asdict(Garbage())})
    return ending.run(_collect_here(given, grace, dry_run=dry_run))


async def _collect_here(given: Invocation, grace: float, *, dry_run: bool) -> Garbage:
    from mirror.sync.session import open_writer

    with open_writer(given.home, given.settings()) as writer:
        found = await writer.collect(timedelta(seconds=grace), dry_run=dry_run)
        await writer.publish()
        return found
