"""Starts the daemon: its store, its signals and its control socket."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack

from mirror.daemon import configuration, descriptors, sources
from mirror.daemon.commands import Stopped, unless_stopped
from mirror.daemon.control import application
from mirror.daemon.daemon import Daemon
from mirror.errors import UsageError
from mirror.settings.home import Home
from mirror.settings.settings import sources as settings_files
from mirror.settings.socket_path import problem
from mirror.sync.session import open_context
from mirror.web.gate import Gate, Limits

log = logging.getLogger("mirror.daemon")

CONTROL_LIMITS = Limits(connections=64, answer=None)
"""`answer=None`: a command that is suspended in a terminal may read its answer later."""

CONTROL_GRACE = 30
"""Seconds that answers of the control socket may take when the daemon stops."""

_CONTROL_SHARE = 8


async def run(home: Home, environ: Mapping[str, str]) -> None:
    """Sync on schedule until SIGTERM, SIGINT or a request to /stop; commits are published before it returns.

    Raises ConfigError, AuthError, StoreBusy (another daemon or sync has locked this home) or StoreError.
    """
    known = sources.state(settings_files(home, environ))
    settings = configuration.load(home, environ)
    if reason := problem(home.socket):
        raise UsageError(f"{reason}; use a shorter MIRROR_HOME")
    descriptors.raise_limit()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    # Until the daemon can reload, the signal must not end the process; the config was read just now.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    key = configuration.find_key(settings, environ)
    async with AsyncExitStack() as stack:
        opening = stack.enter_async_context(
            open_context(home, settings, environ, key_needed=bool(settings.projects)),
        )
        try:
            # To open the store may take minutes: one of an older version is migrated, in transactions.
            context = await unless_stopped(stopping, opening)
        except Stopped:
            log.info("stopped before the store was open")
            return
        daemon = Daemon(home, environ, settings, context, stopping, known, key)
        limits = CONTROL_LIMITS.within(_CONTROL_SHARE)
        await daemon.run(Gate("the control socket", application(daemon), limits, graceful_seconds=CONTROL_GRACE))
