"""`mirror daemon`: sync on schedule, in the foreground."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from mirror.cli.invocation import Invocation, invocation
from mirror.cli.messages import ExitCode, fail, leave, say, verbosity
from mirror.errors import MirrorError, StoreBusy, StoreError, UsageError


def daemon(
    context: typer.Context,
    reload: Annotated[bool, typer.Option("--reload", help="Have the running daemon read its config again.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the running daemon, and wait for its end.")] = False,
) -> None:
    """Sync on schedule, in the foreground.

    Projects in which something runs are looked at every `sync.live_interval`, the others every
    `sync.interval`. A change of the config file is applied without a restart. SIGTERM and Ctrl-C end
    it with everything committed, SIGHUP reloads. `mirror service install` runs it in the background.
    """
    given = invocation(context)
    if reload and stop:
        raise UsageError("--reload or --stop, not both")
    if reload or stop:
        _tell_running(given, stop=stop)
    else:
        _run(given)


def _tell_running(given: Invocation, *, stop: bool) -> None:
    from mirror.control import Control

    control = Control.find(given.home.socket)
    if control is None:
        raise UsageError(f"no daemon runs in {given.home.data}")
    if stop:
        control.stop()
        say("the daemon has stopped")
    else:
        control.reload()
        say("the daemon goes on by the config as it stands now")


def _run(given: Invocation) -> None:
    import faulthandler

    from mirror.daemon import logs
    from mirror.daemon.daemon import run

    try:
        given.home.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(f"{given.home.data} cannot be made a folder: {error.strerror}") from error
    # A watchdog ends a daemon that hangs by SIGABRT; the journal then tells where it hung.
    faulthandler.enable()
    file = logs.configure(given.home, given.environ, verbosity=verbosity())
    try:
        asyncio.run(run(given.home, given.environ))
    except StoreBusy:
        # The log belongs to the daemon that holds the home.
        raise
    except Exception as error:  # noqa: BLE001 - whatever ends the daemon is in its log
        logs.log_end(file, error)
        code = fail(error)
        leave(code if isinstance(error, MirrorError) else ExitCode.FAILED)
