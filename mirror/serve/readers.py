"""Read-only endpoints for callers with tokens of the mirror: one for each choice of projects, with files of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from msgspec import Struct, field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mirror.serve.signing import Signer
from mirror.web.access import Access
from mirror.web.refusal import Refused, response
from mirror.web.snapshots import Snapshots

log = logging.getLogger("mirror.serve")

PATIENCE = 60.0
"""Seconds that a request may wait for its turn."""

Build = Callable[[Snapshots, Signer], ASGIApp]
"""Builds a read-only endpoint over these snapshots, without a guard."""


class _Endpoint(Struct, frozen=True):
    snapshots: Snapshots
    signer: Signer
    app: ASGIApp


class Readers(Struct):
    """Finds the endpoint of a caller, and builds it when it is first used."""

    access: Access
    build: Build
    _endpoints: dict[tuple[str, ...] | None, _Endpoint] = field(default_factory=dict)

    async def of(self, secret: str, scope: Scope) -> ASGIApp:
        """The endpoint of the caller with this token. Raises Refused if there is none."""
        client = scope.get("client")
        who = self.access.find(secret, client[0] if client else "")
        if who.owner:
            # The token of the page opens the page, not the endpoint.
            raise Refused(401, "the token is wrong", "`mirror token add` makes one")
        reader = await self.access.reader(who)
        found = self._endpoints.get(who.projects)
        if found is None or found.snapshots is not reader.snapshots:
            signer = Signer()
            found = _Endpoint(reader.snapshots, signer, self.build(reader.snapshots, signer))
            self._endpoints[who.projects] = found
        return _InTurn(self.access, who.name, found.app)

    def signed(self, path: str, query: Mapping[str, str]) -> ASGIApp | None:
        """The endpoint that has signed this address; None if none has."""
        return next((one.app for one in self._endpoints.values() if one.signer.holds(path, query)), None)


class _InTurn:
    """Passes the requests of a token on in turn, and writes a line of the log for each.

    Scripts that send too many wait: at a refusal the official client would wait for minutes.
    """

    def __init__(self, access: Access, name: str, app: ASGIApp) -> None:
        self._access = access
        self._name = name
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.monotonic(), 0
        async with AsyncExitStack() as turn:

            async def sent(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    # The answer is ready, and a client that reads it slowly keeps no other waiting.
                    await turn.aclose()
                await send(message)

            app = self._app
            try:
                await self._enter(turn)
            except Refused as refused:
                app = response(refused)
            await app(scope, receive, sent)
        milliseconds = 1000 * (time.monotonic() - started)
        address = (scope.get("client") or ("?",))[0]
        log.info(
            "request by %s from %s: %s %s, %d, %.0f ms",
            *(self._name, address, scope["method"], scope["path"], status, milliseconds),
        )

    async def _enter(self, turn: AsyncExitStack) -> None:
        """Wait for a turn, also where the rate does not allow one yet. Raises Refused."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                await turn.enter_async_context(self._access.sdk_turns.waiting(self._name, PATIENCE))
            except Refused as refused:
                wait = refused.retry_after or PATIENCE
                if refused.status != 429 or time.monotonic() + wait > until:
                    raise
                await asyncio.sleep(wait)
            else:
                return
