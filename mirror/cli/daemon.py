"""`mirror daemon`: sync on schedule, in the foreground."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import sys
import time

import typer

from mirror.cli.invocation import invocation
from mirror.home import Home

LOG_BYTES = 10_000_000
LOG_FILES = 3


def daemon(context: typer.Context) -> None:
    """Sync on schedule, in the foreground.

    Projects in which something runs are looked at every `sync.live_interval`, the others every
    `sync.interval`. A change of the config file is applied without a restart. SIGTERM and Ctrl-C end
    it with everything committed.
    """
    from mirror.daemon.daemon import run

    given = invocation(context)
    given.home.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    _log_to(given.home)
    asyncio.run(run(given.home, given.environ))


def _log_to(home: Home) -> None:
    """One line an event, to stderr and to a rotated file in the home."""
    line = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    line.converter = time.gmtime
    handlers: list[logging.Handler] = [
        logging.StreamHandler(sys.stderr),
        logging.handlers.RotatingFileHandler(home.log, maxBytes=LOG_BYTES, backupCount=LOG_FILES, delay=True),
    ]
    logger = logging.getLogger("mirror")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in handlers:
        handler.setFormatter(line)
        logger.addHandler(handler)
    # APScheduler tells of jobs that raised; its other messages repeat what each pass logs itself.
    scheduler = logging.getLogger("apscheduler")
    scheduler.setLevel(logging.ERROR)
    for handler in handlers:
        scheduler.addHandler(handler)
