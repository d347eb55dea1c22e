"""The local HTTP port, served beside everything else that the daemon's loop does."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from mirror.errors import MirrorError
from mirror.settings.home import Home
from mirror.snapshot.pool import IDLE_SECONDS
from mirror.web import token
from mirror.web.app import application
from mirror.web.gate import Gate, Limits
from mirror.web.snapshots import Snapshots

log = logging.getLogger("mirror.web")

LIMITS = Limits(connections=256)
"""Beyond what browsers and scripts of one person open; the descriptors that are left are for files and passes."""

_SHARE = 4


class Listener:
    """Listens where it is told, or nowhere; what keeps it from listening is logged and told by `status`, not raised."""

    def __init__(
        self,
        home: Home,
        describe: Callable[[], Mapping[str, Any]],
        routes: Sequence[BaseRoute] = (),
        neighbour: Neighbour | None = None,
    ) -> None:
        """`describe` tells of the daemon to the page; `routes` are served beside the page, behind the same guard.

        `neighbour` is another application on the same port, which has a guard of its own.
        """
        self._home = home
        self._describe = describe
        self._routes = routes
        self._neighbour = neighbour
        self._listen = ""
        self._url: str | None = None
        self._error: str | None = None
        self._stop: Callable[[], None] | None = None
        self._serving: asyncio.Task[None] | None = None

    def status(self) -> dict[str, str | None]:
        """`url` where the page is served, and `error` why it is not; both null when it is turned off."""
        return {"url": self._url, "error": self._error}

    async def listen_on(self, address: str) -> None:
        """Serve at "host:port" from here on, or nowhere; the address that is served already is left as it is."""
        if address == self._listen and self._error is None:
            return
        await self.close()
        self._listen = address
        if not address:
            return
        try:
            listener = _bound(address)
        except OSError as error:
            self._refused(f"cannot listen on {address}: {error.strerror or error}; choose another http.listen")
            return
        try:
            key = token.load(self._home.web_token)
        except MirrorError as error:
            listener.close()
            self._refused(str(error))
            return
        host, port = listener.getsockname()[:2]
        self._url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._serving = asyncio.create_task(self._serve(listener, key))
        log.info("the page is at %s: `mirror open`", self._url)

    async def close(self) -> None:
        """Stop listening; answers under way get a second."""
        if self._stop is not None and self._serving is not None:
            self._stop()
            await self._serving
        self._listen, self._url, self._error, self._stop, self._serving = "", None, None, None, None

    def _refused(self, reason: str) -> None:
        self._error = reason
        log.error("%s; everything else goes on", reason)

    async def _serve(self, listener: socket.socket, key: str) -> None:
        snapshots = Snapshots(self._home)
        # A start takes longer than most questions.
        snapshots.statements.warm()
        page = application(snapshots, key, self._describe, self._routes)
        both = self._neighbour.beside(page, snapshots) if self._neighbour else page
        gate = Gate("the port of the page", both, LIMITS.within(_SHARE))
        self._stop = gate.stop
        idle = asyncio.create_task(_close_idle(snapshots))
        try:
            await gate.serve(listener)
        finally:
            idle.cancel()
            listener.close()
            snapshots.close()


@dataclass(frozen=True)
class Neighbour:
    """An application that takes the paths with these beginnings; it reads the snapshots that the page reads."""

    paths: tuple[str, ...]
    build: Callable[[Snapshots], ASGIApp]

    def beside(self, page: ASGIApp, snapshots: Snapshots) -> ASGIApp:
        """Both as one application."""
        other = self.build(snapshots)

        async def either(scope: Scope, receive: Receive, send: Send) -> None:
            mine = scope["type"] == "http" and scope["path"].startswith(self.paths)
            await (other if mine else page)(scope, receive, send)

        return either


async def _close_idle(snapshots: Snapshots) -> None:
    while True:
        await asyncio.sleep(IDLE_SECONDS / 2)
        await asyncio.to_thread(snapshots.close_idle)


def _bound(address: str) -> socket.socket:
    """A socket that listens there. Raises OSError."""
    host, _, port = address.rpartition(":")
    family, kind, protocol, _, place = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    # asyncio turns Nagle's algorithm off only for sockets that name TCP; with it, an answer may take 40 ms.
    listener = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        # So that another program that wants the port is refused from now on.
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
