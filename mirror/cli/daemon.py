"""`mirror daemon`: sync on schedule, in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from mirror.cli import ending
from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import ExitCode, fail, leave, say, verbosity
from mirror.errors import MirrorError, StoreBusy, StoreError, UsageError


def daemon(
    context: typer.Context,
    reload: Annotated[bool, typer.Option("--reload", help="Make the running daemon read its config again.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the running daemon and wait until it has ended.")] = False,
) -> None:
    """Sync on schedule, in the foreground.

    Projects with live runs are synced every `sync.live_interval`, the others every `sync.interval`.
    Changes of the config file are applied without a restart. SIGTERM and Ctrl-C commit everything and
    end it, SIGHUP reloads the config. `mirror service install` runs it in the background.
    """
    given = invocation(context)
    if reload and stop:
        raise UsageError("give --reload or --stop, not both")
    if reload or stop:
        _control_running(given, stop=stop)
    else:
        _run(given)


def _control_running(given: Invocation, *, stop: bool) -> None:
    from mirror.control import Control

    control = Control.find(given.home.socket)
    if control is None:
        raise UsageError(f"no daemon runs in {given.home.data}")
    if stop:
        control.stop()
        say("the daemon has stopped")
    else:
        control.reload()
        say("the daemon has read its config again")


def _run(given: Invocation) -> None:
    import faulthandler

    from mirror.daemon import logs
    from mirror.daemon.main import run

    try:
        given.home.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(f"cannot create the folder {given.home.data}: {error.strerror}") from error
    # The watchdog ends a daemon that hangs with SIGABRT; the journal then shows where it hung.
    faulthandler.enable()
    file = logs.configure(given.home, given.environ, verbosity=verbosity())
    try:
        ending.run(run(given.home, given.environ))
    except StoreBusy:
        # The log belongs to the daemon that holds the home.
        raise
    except Exception as error:  # noqa: BLE001 - any error that ends the daemon is logged
        logs.log_end(file, error)
        code = fail(error)
        leave(code if isinstance(error, MirrorError) else ExitCode.FAILED)
