"""Downloads of large files for httpx by the standard library, each in a thread of its own.

Python's lock is free while a socket is read, a digest taken and a file written, so large downloads use all cores; as
tasks of one event loop they take twice the CPU time, most of it for copies and for passing bytes between threads.
urllib3 would do it as well, but it changes the quoting of signed addresses, which makes their signatures invalid.

Redirects, credentials and the answers themselves stay httpx's. The threads are daemons: one that still waits for a
connection when its download is cancelled must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ssl import SSLContext, SSLError
from typing import TypeVar

import httpx

from mirror.threads import in_thread

Result = TypeVar("Result")
Take = Callable[[bytes | bytearray], object]
Receive = Callable[[Take], Awaitable[None]]

RECEIVE = "receive"
"""The extension of an answer whose body is received in its thread: a coroutine function that passes on each piece."""

PIECE = 512 << 10
"""Bytes that are passed on at a time, at most and as a rule."""

IDLE_SECONDS = 5.0
"""An unused connection is closed after this; most servers close theirs later."""

STOPPING_SECONDS = 1.0
"""How long a cancelled download waits for its thread."""

Origin = tuple[str, str, int | None]


class ThreadTransport(httpx.AsyncBaseTransport):
    """Sends requests without a body over HTTP/1.1. As many connections are open as requests are under way, or were."""

    def __init__(self, ssl_context: SSLContext) -> None:
        self._ssl_context = ssl_context
        self._idle: list[tuple[float, Origin, HTTPConnection]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer, whose body is still to be read. Raises the exceptions of httpx."""
        origin = (request.url.scheme, request.url.raw_host.decode("ascii"), request.url.port)
        kept = self._take_idle(origin)
        body = await in_thread(lambda: self._ask(request, origin, kept), _Body.drop)
        return httpx.Response(
            body.answer.status,
            headers=body.answer.getheaders(),
            stream=body,
            request=request,
            extensions={RECEIVE: body.receive},
        )

    def _ask(self, request: httpx.Request, origin: Origin, kept: HTTPConnection | None) -> _Body:
        """Send the request and return its answer; in a thread."""
        if kept is not None:
            try:
                return self._ask_on(kept, request, origin)
            except httpx.TransportError:
                # The server may have closed it meanwhile.
                kept.close()
        connection = self._connect(request, origin)
        try:
            return self._ask_on(connection, request, origin)
        except BaseException:
            connection.close()
            raise

    def _connect(self, request: httpx.Request, origin: Origin) -> HTTPConnection:
        scheme, host, port = origin
        seconds = (request.extensions.get("timeout") or {}).get("connect")
        if scheme == "https":
            connection: HTTPConnection = HTTPSConnection(host, port, timeout=seconds, context=self._ssl_context)
        else:
            connection = HTTPConnection(host, port, timeout=seconds)
        try:
            connection.connect()
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error) or "no connection in time", request=request) from error
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error), request=request) from error
        return connection

    def _ask_on(self, connection: HTTPConnection, request: httpx.Request, origin: Origin) -> _Body:
        sock: socket.socket = connection.sock
        try:
            sock.settimeout((request.extensions.get("timeout") or {}).get("read"))
            connection.putrequest(
                request.method, request.url.raw_path.decode("ascii"), skip_host=True, skip_accept_encoding=True
            )
            for name, value in request.headers.raw:
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
        except Exception as error:
            raise _of_httpx(error, request) from error
        return _Body(answer, request, sock, lambda: self._keep(origin, connection), connection.close)

    def _take_idle(self, origin: Origin) -> HTTPConnection | None:
        """Return an open connection to this origin, if there is one."""
        self._close_idle(IDLE_SECONDS)
        for kept in [one for one in self._idle if one[1] == origin]:
            self._idle.remove(kept)
            connection = kept[2]
            waiting = select.poll()
            waiting.register(connection.sock, select.POLLIN)
            if not waiting.poll(0):
                return connection
            # The server has closed it, or sends what nobody has asked for.
            connection.close()
        return None

    def _keep(self, origin: Origin, connection: HTTPConnection) -> None:
        self._idle.append((time.monotonic(), origin, connection))
        asyncio.get_running_loop().call_later(IDLE_SECONDS, self._close_idle, IDLE_SECONDS)

    def _close_idle(self, seconds: float) -> None:
        """Close the connections that have not been used for this long."""
        before = time.monotonic() - seconds
        for kept in [one for one in self._idle if one[0] <= before]:
            self._idle.remove(kept)
            kept[2].close()

    async def aclose(self) -> None:
        """Close the connections."""
        self._close_idle(0)


class _Body(httpx.AsyncByteStream):
    """The body of an answer; `keep` and `close` do that with its connection."""

    def __init__(
        self,
        answer: HTTPResponse,
        request: httpx.Request,
        sock: socket.socket,
        keep: Callable[[], None],
        close: Callable[[], None],
    ) -> None:
        self.answer = answer
        self._request = request
        self._sock = sock
        self._keep = keep
        self._close = close
        self._complete = False
        self._stopped = False

    def _read(self) -> bytes:
        try:
            piece = self.answer.read1(PIECE)
        except Exception as error:
            raise _of_httpx(error, self._request) from error
        if not piece and not self._stopped:
            if self.answer.length:
                raise httpx.RemoteProtocolError(f"{self.answer.length:,} bytes are missing", request=self._request)
            self._complete = True
        return piece

    def _pass_on(self, take: Take) -> None:
        held = bytearray()
        try:
            while piece := self._read():
                if self._stopped:
                    return
                if not held and len(piece) >= PIECE // 4:
                    take(piece)
                    continue
                # Over TLS, pieces are small.
                held += piece
                if len(held) >= PIECE // 2:
                    batch, held = held, bytearray()
                    take(batch)
        finally:
            if held and not self._stopped:
                take(held)

    async def receive(self, take: Take) -> None:
        """Pass the body to `take`, which is called in a thread, piece by piece. What it raises ends the download."""
        work = asyncio.ensure_future(in_thread(lambda: self._pass_on(take)))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            self._stopped = True
            # Ends the wait for more. What is read after that may not be decrypted, and is dropped.
            with suppress(OSError):
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
            # A disk may hold up for ever what takes the body.
            await asyncio.wait([work], timeout=STOPPING_SECONDS)
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await in_thread(self._read):
            yield piece

    async def aclose(self) -> None:
        """Keep the connection if the whole body was read, else close it."""
        if self._complete and not self.answer.will_close:
            self.answer.close()
            self._keep()
        else:
            self.drop()

    def drop(self) -> None:
        """Close the answer and its connection. A thread that still reads is ended first: closing waits for it."""
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        self.answer.close()
        self._close()


def _of_httpx(error: Exception, request: httpx.Request) -> httpx.TransportError:
    """Return the exception of httpx for what was raised on an open connection."""
    text = str(error) or type(error).__name__
    if isinstance(error, TimeoutError):
        return httpx.ReadTimeout(text, request=request)
    if isinstance(error, HTTPException | SSLError | ValueError):
        return httpx.RemoteProtocolError(text, request=request)
    return httpx.ReadError(text, request=request)
