"""`mirror backup` and `mirror restore`: a complete copy of the mirror in a folder, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli import ending
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import say
from mirror.errors import StoreBusy, UsageError

if TYPE_CHECKING:
    from mirror.store.backup import Summary


def backup(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or one with an earlier backup.")],
) -> None:
    """Copy the mirror to a folder: data, history and config, but no key.

    Consistent also while a daemon runs, which publishes everything first. Into the same folder again, only what is new
    is copied. Each file is checked against its digest.
    """
    from mirror.control import Control
    from mirror.store import backup as backups
    from mirror.store.database import log_files

    given = invocation(context)
    control = Control.find(given.home.socket)
    if control is not None:
        control.publish()
    elif given.home.published.exists() and log_files(given.home.state):
        # Something was committed by a process that was killed before it published.
        ending.run(_publish(given))
    made = backups.make(given.home, folder)
    say(f"{folder}: {_described(made)}; {_megabytes(made.copied_bytes)} were copied")


def restore(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `mirror backup` wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the mirror in the home; its databases are kept in `aside`.")
    ] = False,
) -> None:
    """Put a backup into an empty home, check it, and publish it.

    A config that is there already stays. The next pass pulls what changed since the backup was made.
    """
    from mirror.control import Control
    from mirror.store import backup as backups

    given = invocation(context)
    if Control.find(given.home.socket) is not None:
        raise UsageError(f"a daemon runs in {given.home.data}; end it with `mirror daemon --stop`")
    # A config that is not valid is reported before anything is changed.
    given.settings()
    with _reserved(given):
        restored = backups.restore(folder, given.home, replace=replace)
    ending.run(_publish(given))
    backups.check_restored(given.home, restored)
    say(f"{given.home.data}: {_described(restored)}; `mirror sync` or a daemon continues from there")


async def _publish(given: Invocation) -> None:
    """Open the store, which finds out whether it can be used, and publish it."""
    from mirror.sync.session import open_writer

    with open_writer(given.home, given.settings()) as writer:
        await writer.publish()


@contextmanager
def _reserved(given: Invocation) -> Iterator[None]:
    """Lock the state, as DuckDB does, so that no other process opens it in the block.

    Raises StoreBusy if another process, such as a sync, has it open.
    """
    import fcntl

    if not given.home.state.exists():
        yield
        return
    with given.home.state.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreBusy(f"{given.home.state} is held by another process; wait until it has ended") from error
        yield


def _described(summary: Summary) -> str:
    runs = f"{summary.runs:,} {'run' if summary.runs == 1 else 'runs'}"
    rows = f"{summary.history_rows:,} history {'row' if summary.history_rows == 1 else 'rows'}"
    return f"{runs}, {rows}, {_megabytes(summary.bytes)} in {_files(summary.segments + summary.contents + 1)}"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _files(count: int) -> str:
    return f"{count:,} {'file' if count == 1 else 'files'}"
