"""Answers of tools from a worker process, within limits of time and memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from mirror.mcp import resources

if TYPE_CHECKING:
    from mirror.web.statements import Answer

SECONDS = 30.0
"""How long an answer may take."""


class Workers(Protocol):
    """Answers questions in processes of their own, as `mirror.web.statements.Statements`."""

    def ask(
        self, question: str, arguments: Mapping[str, Any], seconds: float, cancelled: threading.Event | None = None
    ) -> Answer:
        """The complete answer."""


class Asking(Struct, frozen=True):
    """Asks workers, which read the newest snapshot of all projects, or of those that a token may read."""

    workers: Workers
    entity: str | None = None
    turn: Callable[[str], AbstractAsyncContextManager[None]] = lambda _: nullcontext()
    """Waits until one more tool or resource, named so, may be answered."""

    pool: Executor | None = None

    async def tool(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The answer of a tool. Raises MirrorError."""
        asked = {"tool": name, "arguments": dict(arguments), "entity": self.entity}
        return await self._asked("mirror.mcp.tools:question", asked)

    async def resource(self, uri: str) -> str:
        """The text of a resource."""
        if uri == resources.FILTERS:
            return resources.filters()
        return await self._asked("mirror.mcp.resources:schema", {})

    async def _asked(self, question: str, arguments: Mapping[str, Any]) -> str:
        cancelled = threading.Event()
        ask = partial(self.workers.ask, question, arguments, SECONDS, cancelled)
        try:
            async with self.turn(arguments.get("tool", "schema")):
                found = await asyncio.get_running_loop().run_in_executor(self.pool, ask)
        finally:
            # If the client has cancelled its request, the worker is needed for other ones.
            cancelled.set()
        return found.content.decode()
