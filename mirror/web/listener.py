"""Serves the local HTTP port in the daemon's event loop."""

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
"""More than one person's browsers and scripts open; the other descriptors are for files and passes."""

_SHARE = 4


class Listener:
    """Listens on one address or on none. Errors are logged and reported by `status`, not raised."""

    def __init__(
        self,
        home: Home,
        describe: Callable[[], Mapping[str, Any]],
        routes: Sequence[BaseRoute] = (),
        neighbour: Neighbour | None = None,
    ) -> None:
        """Prepare to serve the page.

        `describe` returns what the page shows about the daemon; `routes` are served with the page, behind the same
        guard. `neighbour` is another application on the same port, with its own guard.
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
        """`url` is where the page is served, `error` why it is not; both are None if it is turned off."""
        return {"url": self._url, "error": self._error}

    async def listen_on(self, address: str) -> None:
        """Serve at "host:port" from now on, or nowhere for "". Does nothing if that address is already served."""
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
        """Stop listening; responses in progress get a second."""
        if self._stop is not None and self._serving is not None:
            self._stop()
            await self._serving
        self._listen, self._url, self._error, self._stop, self._serving = "", None, None, None, None

    def _refused(self, reason: str) -> None:
        self._error = reason
        log.error("%s; everything else continues", reason)

    async def _serve(self, listener: socket.socket, key: str) -> None:
        snapshots = Snapshots(self._home)
        # Starting a worker takes longer than most questions.
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
    """Another application for paths with these prefixes. It reads the same snapshots as the page."""

    paths: tuple[str, ...]
    build: Callable[[Snapshots], ASGIApp]

    def beside(self, page: ASGIApp, snapshots: Snapshots) -> ASGIApp:
        """Combine both into one application."""
        other = self.build(snapshots)

        async def either(scope: Scope, receive: Receive, send: Send) -> None:
            is_other = scope["type"] == "http" and scope["path"].startswith(self.paths)
            await (other if is_other else page)(scope, receive, send)

        return either


async def _close_idle(snapshots: Snapshots) -> None:
    while True:
        await asyncio.sleep(IDLE_SECONDS / 2)
        await asyncio.to_thread(snapshots.close_idle)


def _bound(address: str) -> socket.socket:
    """A socket that listens on the address. Raises OSError."""
    host, _, port = address.rpartition(":")
    family, kind, protocol, _, place = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    # asyncio turns Nagle's algorithm off only for sockets that name TCP; with it, an answer may take 40 ms.
    listener = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        # From now on another program that wants the port is refused.
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
