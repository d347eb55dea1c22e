"""An event loop that ends within seconds although threads of it hang, as in a network folder that never answers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from mirror import threads

Result = TypeVar("Result")

THREADS = 32
"""Threads of the event loop. Python would take four more than there are processors, and some may hang."""


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Like `asyncio.run`, but its end does not wait for a thread that hangs."""

    async def with_threads() -> Result:
        asyncio.get_running_loop().set_default_executor(threads.DaemonThreads(THREADS, "asyncio"))
        return await work

    return asyncio.run(with_threads())
