"""`/mcp` on the daemon's port: streamable HTTP by token. A token that is limited to projects sees only these."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from mirror.errors import MirrorError
from mirror.mcp.asking import SECONDS, Asking
from mirror.web.access import Access, Caller, caller
from mirror.web.refusal import Refused, response

log = logging.getLogger("mirror.web.audit")

PATH = "/mcp"

MISSING = Refused(
    501, "mcp is not installed where the daemon runs", "`pip install 'wandb-mirror[mcp]'` there, and restart the daemon"
)


def door(access: Access) -> Sequence[BaseRoute]:
    """The route, for `mirror.web.doors`."""
    return [Route(PATH, _Endpoint(access))]


class _Endpoint:
    """Answers single requests. There are no sessions, and so no streams to open or to end."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of a caller that the guard knows."""
        try:
            if scope["method"] != "POST":
                raise Refused(405, f"{PATH} takes POST only, not {scope['method']}", "no stream is kept open here")
            server = await _server()
            who = caller(Request(scope))
            reader = await self._access.reader(who)
        except MirrorError as error:
            await response(error)(scope, receive, send)
            return
        address = scope["client"][0] if scope.get("client") else ""

        @asynccontextmanager
        async def turn(tool: str) -> AsyncIterator[None]:
            async with self._access.turns.waiting(who.name, SECONDS, unlimited=who.owner):
                with _Audit(who, address, tool):
                    yield

        asking = Asking(reader.statements, turn=turn, pool=self._access.pool)
        await server.over_http(asking, scope, receive, send)


async def _server() -> Any:
    """The module that needs the package, imported in a thread since that takes a second."""
    try:
        return await asyncio.to_thread(import_module, "mirror.mcp.server")
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise MISSING from None


class _Audit:
    """Writes one line to the log per answer: who called which tool, and what came of it."""

    def __init__(self, who: Caller, address: str, tool: str) -> None:
        self._line = f"{tool} by {who.name} from {address or '?'}"

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        outcome = f"failed: {error}" if error else "answered"
        log.info("%s: %s, %.0f ms", self._line, outcome, 1000 * (time.monotonic() - self._started))
