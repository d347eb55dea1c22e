"""Serves the local HTTP port in the daemon's event loop."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from mirror.errors import MirrorError, one_line
from mirror.settings.home import Home
from mirror.settings.tokens import Tokens
from mirror.settings.values import is_loopback
from mirror.snapshot.pool import IDLE_SECONDS
from mirror.threads import in_thread
from mirror.web import doors, token
from mirror.web.access import Access
from mirror.web.app import application
from mirror.web.certificates import Certificate
from mirror.web.doors import Door
from mirror.web.gate import Gate, Limits
from mirror.web.peers import is_this_machine
from mirror.web.snapshots import Snapshots
from mirror.web.turns import RATE

log = logging.getLogger("mirror.web")

LIMITS = Limits(connections=256)
"""More than one person's browsers and scripts open; the other descriptors are for files and passes."""

TOKEN_SECONDS = 2.0
"""How often to look whether there is a token, while none keeps the port closed."""

AGAIN_SECONDS = 5.0
"""A port that crashed is opened again after this time."""

_CHOICES = 10
"""How many ports are tried where the system chooses one."""

NAME_SECONDS = 10.0
"""How long to wait for the address of a host name."""

_SHARE = 4


class _NoToken(MirrorError):
    """The port would be open to other machines, and there is no token."""


class Listener:
    """Listens on one address or on none. Errors are logged and reported by `status`, not raised."""

    def __init__(
        self,
        home: Home,
        describe: Callable[[], Mapping[str, Any]],
        routes: Sequence[BaseRoute] = (),
        neighbour: Neighbour | None = None,
        further_doors: Sequence[Door] = (),
    ) -> None:
        """Prepare to serve the page.

        `describe` returns what the page shows about the daemon; `routes` are served with the page, behind the same
        guard. `neighbour` is another application on the same port, with its own guard. `further_doors` are served
        beside the query API, by token.
        """
        self._home = home
        self._describe = describe
        self._routes = routes
        self._neighbour = neighbour
        self._doors = further_doors
        self._asked: tuple[str, str, str, int] | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._url: str | None = None
        self._error: str | None = None
        self._stop: Callable[[], None] | None = None
        self._serving: asyncio.Task[None] | None = None
        self._listeners: Sequence[socket.socket] = ()
        self._opening = asyncio.Lock()
        self.access: Access | None = None

    def status(self) -> dict[str, str | None]:
        """`url` is where the page is served, `error` why it is not; both are None if it is turned off."""
        return {"url": self._url, "error": self._error}

    async def listen_on(self, address: str, *, cert: str = "", key: str = "", rate: int = RATE) -> None:
        """Serve at "host:port" from now on, or nowhere for "". Does nothing if all is served like this already.

        Other machines reach an address only once there is a token. `cert` and `key` are files for TLS; `rate` is how
        many queries a token may send in a minute.
        """
        async with self._opening:
            await self._listen_on((address, cert, key, rate))

    async def _listen_on(self, asked: tuple[str, str, str, int]) -> None:
        address, cert, key, rate = asked
        if asked == self._asked and self._error is None:
            return
        await self._close()
        self._asked = asked
        if not address:
            return
        try:
            self._check_token(address)
            certificate = _certificate(cert, key)
            secret = token.load(self._home.web_token)
            # In a thread, since the host may be a name, whose server may not answer.
            async with asyncio.timeout(NAME_SECONDS):
                listeners = await in_thread(lambda: _listening(address), _close_all)
        except MirrorError as error:
            self._refused(str(error))
            if isinstance(error, _NoToken):
                self._waiting = asyncio.create_task(self._wait_for_token(asked))
            return
        except OSError as error:
            reason = error.strerror or str(error) or f"no address of it was found within {NAME_SECONDS:g} s"
            self._refused(f"cannot listen on {address}: {reason}; choose another http.listen")
            return
        self._listeners = listeners
        self._url = _page(*listeners[-1].getsockname()[:2])
        self._serving = asyncio.create_task(self._serve(listeners, secret, certificate, rate))
        self._serving.add_done_callback(self._ended)
        log.info("the page is at %s: `mirror open`", self._url)
        if not is_loopback(address):
            how = "with TLS" if certificate else "without TLS, so that tokens can be read on the way: see docs/api.md"
            log.info("other machines reach the mirror by token at %s, %s", address, how)

    def _check_token(self, address: str) -> None:
        if not is_loopback(address) and not Tokens(self._home.tokens).usable():
            raise _NoToken(
                f"other machines reach http.listen = {address}, and there is no token yet; run `mirror token add NAME`"
            )

    async def _wait_for_token(self, asked: tuple[str, str, str, int]) -> None:
        """Listen once there is a token."""
        tokens = Tokens(self._home.tokens)
        while True:
            await asyncio.sleep(TOKEN_SECONDS)
            with suppress(MirrorError):
                if tokens.usable():
                    break
        self._waiting = None
        address, cert, key, rate = asked
        await self.listen_on(address, cert=cert, key=key, rate=rate)

    def _ended(self, serving: asyncio.Task[None]) -> None:
        """Report a crash, and open the port again after a while."""
        if serving is not self._serving or serving.cancelled() or (error := serving.exception()) is None:
            return
        log.error("the port of the page crashed", exc_info=error)
        assert self._asked is not None
        self._url, self._stop, self._serving = None, None, None
        reason = one_line(f"{type(error).__name__}: {error}")
        self._refused(f"the port of the page crashed ({reason}) and is opened again every {AGAIN_SECONDS:g} s")
        self._waiting = asyncio.create_task(self._open_again(self._asked))

    async def _open_again(self, asked: tuple[str, str, str, int]) -> None:
        await asyncio.sleep(AGAIN_SECONDS)
        address, cert, key, rate = asked
        self._waiting = None
        await self.listen_on(address, cert=cert, key=key, rate=rate)

    async def close(self) -> None:
        """Stop listening; responses in progress get a second."""
        if self._waiting is not None:
            self._waiting.cancel()
        async with self._opening:
            await self._close()

    async def _close(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        serving, self._serving = self._serving, None
        if serving is not None:
            if self._stop is not None:
                self._stop()
            else:
                # It has not begun.
                serving.cancel()
            await asyncio.wait([serving])
            _close_all(self._listeners)
            if not serving.cancelled() and (error := serving.exception()) is not None:
                log.error("the port of the page crashed when it was closed", exc_info=error)
        self._asked, self._waiting = None, None
        self._url, self._error, self._stop, self._serving = None, None, None, None

    def _refused(self, reason: str) -> None:
        self._error = reason
        log.error("%s; everything else continues", reason)

    async def _serve(
        self, listeners: Sequence[socket.socket], key: str, certificate: Certificate | None, rate: int
    ) -> None:
        snapshots = Snapshots(self._home)
        # Starting a worker takes longer than most questions.
        snapshots.statements.warm()
        page = application(snapshots, key, self._describe, self._routes)
        self.access = access = Access(self._home, key, snapshots, rate)
        both = self._neighbour.beside(page, access) if self._neighbour else page
        app = doors.beside(both, access, self._doors)
        gate = Gate("the port of the page", app, LIMITS.within(_SHARE), certificate=certificate)
        self._stop = gate.stop
        idle = asyncio.create_task(_close_idle(snapshots, access))
        try:
            await gate.serve(*listeners)
        finally:
            idle.cancel()
            _close_all(listeners)
            await asyncio.to_thread(access.close)
            snapshots.close()


class Neighbour(Struct, frozen=True):
    """Another application for paths with these prefixes. It reads the same snapshots as the page."""

    paths: tuple[str, ...]
    build: Callable[[Access], ASGIApp]

    def beside(self, page: ASGIApp, access: Access) -> ASGIApp:
        """Combine both into one application."""
        other = self.build(access)

        async def either(scope: Scope, receive: Receive, send: Send) -> None:
            is_other = scope["type"] == "http" and scope["path"].startswith(self.paths)
            await (other if is_other else page)(scope, receive, send)

        return either


async def _close_idle(snapshots: Snapshots, access: Access) -> None:
    while True:
        await asyncio.sleep(IDLE_SECONDS / 2)
        try:
            await asyncio.to_thread(snapshots.close_idle)
            await asyncio.to_thread(access.close_idle)
        except Exception:
            log.exception("what nobody uses any more was not closed; trying again")


def _page(host: str, port: int) -> str:
    """The address of the page, which only this machine reaches, for a port that may be open to others."""
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _certificate(cert: str, key: str) -> Certificate | None:
    """The certificate of these files; None without any. Raises MirrorError if it cannot be used."""
    if not cert:
        if key:
            raise MirrorError("http.key is set without http.cert; set both, or neither")
        return None
    found = Certificate(Path(cert).expanduser(), Path(key).expanduser() if key else None)
    found.load()
    return found


def _listening(address: str) -> list[socket.socket]:
    """Like `_bound`; for port 0, another one is chosen if the first is taken where this machine reaches the page."""
    for _ in range(_CHOICES - 1 if address.endswith(":0") else 0):
        try:
            return _bound(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return _bound(address)


def _bound(address: str) -> list[socket.socket]:
    """Sockets that listen on the address, the last one where this machine reaches the page. Raises OSError."""
    first = _socket(address)
    host, port = first.getsockname()[:2]
    if is_this_machine(host) or ipaddress.ip_address(host).is_unspecified:
        return [first]
    try:
        return [first, _socket(f"[::1]:{port}" if ":" in host else f"127.0.0.1:{port}")]
    except OSError:
        first.close()
        raise


def _close_all(listeners: Sequence[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def _socket(address: str) -> socket.socket:
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
