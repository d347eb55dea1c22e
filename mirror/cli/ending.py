"""Ends the process of a command within seconds, although threads of it hang, as in a network folder that never answers.

What is to be closed is closed before: this is only about the threads that Python would wait for at its exit.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from mirror import threads

Result = TypeVar("Result")

THREADS = 32
"""Threads of the event loop. Python would take four more than there are processors, and some may hang."""

PATIENCE = 3.0
"""Seconds that Python's own end may take."""


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Like `asyncio.run`, but its end does not wait for a thread that hangs."""

    async def with_threads() -> Result:
        asyncio.get_running_loop().set_default_executor(threads.DaemonThreads(THREADS, "asyncio"))
        return await work

    return asyncio.run(with_threads())


def ended(code: int) -> int:
    """Return this exit code of the process, or end it here and now where Python's own end would hang or crash.

    A daemon thread within a library, such as DuckDB, may crash while Python takes the process apart.
    """
    if threads.at_work():
        _leave(code)
    threading.Thread(target=_leave_late, args=(code,), name="ending", daemon=True).start()
    return code


def _leave_late(code: int) -> None:
    time.sleep(PATIENCE)
    _leave(code)


def _leave(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        # They may be closed, or None.
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)
