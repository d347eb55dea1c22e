"""Downloads for httpx over asyncio's streams: a sixth of the CPU time that httpx's own transport takes for a file.

h11 parses the heads, and bodies without a length; a body with a length, as every file of an object store has, is passed
on as it arrives. Redirects, content encodings and the answers themselves are httpx's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ssl import SSLContext
from urllib.request import getproxies

import h11
import httpx

PIECE_BYTES = 1 << 18
"""The most bytes of a body that are passed on at a time."""

HEAD_BYTES = 100_000
"""The largest head of an answer."""

IDLE_SECONDS = 5.0
"""An unused connection is closed after this; most servers close theirs later."""

Origin = tuple[str, str, int]


def mounts(ssl_context: SSLContext) -> dict[str, httpx.AsyncBaseTransport]:
    """Return the transports of a client by scheme; a scheme with a proxy is left to httpx."""
    transport = StreamTransport(ssl_context)
    proxied = getproxies().keys()
    return {f"{scheme}://": transport for scheme in ("http", "https") if not proxied & {scheme, "all"}}


@dataclass
class _Connection:
    """An open connection. `used` is the loop's time when its last answer ended, None before the first."""

    origin: Origin
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: float | None = None

    def close(self) -> None:
        """Close it without a farewell, for which TLS would wait."""
        self.writer.transport.abort()

    @property
    def is_open(self) -> bool:
        return not (self.reader.at_eof() or self.writer.is_closing() or self.reader.exception())


class StreamTransport(httpx.AsyncBaseTransport):
    """Sends requests without a body over HTTP/1.1. As many connections are open as requests are under way, or were."""

    def __init__(self, ssl_context: SSLContext) -> None:
        self._ssl_context = ssl_context
        self._idle: list[_Connection] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer, whose body is still to be read. Raises the exceptions of httpx."""
        url = request.url
        if url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"unsupported protocol {url.scheme!r}", request=request)
        origin = (url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        timeouts = request.extensions.get("timeout") or {}
        while True:
            connection = self._take(origin)
            if connection is None:
                connection = await self._connect(origin, request, timeouts)
            try:
                body = _Body(self, connection, request, timeouts.get("read"))
                head = await body.ask()
            except BaseException as error:
                connection.close()
                # The server may close an idle connection at any time, without an answer.
                if connection.used is not None and isinstance(error, httpx.ReadError | httpx.WriteError | _NoAnswer):
                    continue
                raise
            return httpx.Response(head.status_code, headers=head.headers.raw_items(), stream=body, request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        while self._idle:
            connection = self._idle.pop()
            connection.close()
            with suppress(OSError):
                await connection.writer.wait_closed()

    def put_back(self, connection: _Connection) -> None:
        """Keep the connection for the next request."""
        connection.used = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def _take(self, origin: Origin) -> _Connection | None:
        """Return the connection to this origin that was used last; close those that were not used for long."""
        oldest = asyncio.get_running_loop().time() - IDLE_SECONDS
        for connection in [one for one in self._idle if one.used is None or one.used < oldest or not one.is_open]:
            self._idle.remove(connection)
            connection.close()
        found = next((one for one in reversed(self._idle) if one.origin == origin), None)
        if found is not None:
            self._idle.remove(found)
        return found

    async def _connect(self, origin: Origin, request: httpx.Request, timeouts: Mapping[str, float]) -> _Connection:
        scheme, host, port = origin
        context = self._ssl_context if scheme == "https" else None
        try:
            async with asyncio.timeout(timeouts.get("connect")):
                reader, writer = await asyncio.open_connection(
                    host, port, ssl=context, limit=PIECE_BYTES, happy_eyeballs_delay=0.25
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error), request=request) from error
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error), request=request) from error
        return _Connection(origin, reader, writer)


class _NoAnswer(httpx.RemoteProtocolError):
    """The connection was closed before the first byte of an answer."""


class _Body(httpx.AsyncByteStream):
    """A request on a connection, and the body of its answer."""

    def __init__(
        self, transport: StreamTransport, connection: _Connection, request: httpx.Request, timeout: float | None
    ) -> None:
        self._transport = transport
        self._connection = connection
        self._request = request
        self._timeout = timeout
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        self._left: int | None = None
        self._keeps_open = False
        self._ended = False

    async def ask(self) -> h11.Response:
        """Send the request and return the head of its answer."""
        url, writer = self._request.url, self._connection.writer
        try:
            asked = h11.Request(method=self._request.method, target=url.raw_path, headers=self._request.headers.raw)
            sent = (self._protocol.send(asked) or b"") + (self._protocol.send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error), request=self._request) from error
        async with self._failures(httpx.WriteError, httpx.WriteTimeout):
            writer.write(sent)
            await writer.drain()
        event = await self._event(first=True)
        while isinstance(event, h11.InformationalResponse):
            event = await self._event()
        assert isinstance(event, h11.Response)
        headers = dict(iter(event.headers))
        self._keeps_open = event.http_version == b"1.1" and b"close" not in headers.get(b"connection", b"").lower()
        if b"transfer-encoding" not in headers and event.status_code == httpx.codes.OK:
            # h11 has checked that the length is a number.
            self._left = int(headers[b"content-length"]) if b"content-length" in headers else None
        return event

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = self._parsed() if self._left is None else self._counted(self._left)
        async for piece in pieces:
            yield piece
        self._ended = True

    async def _counted(self, left: int) -> AsyncGenerator[bytes]:
        """Yield a body of `left` bytes as it arrives."""
        piece = self._protocol.trailing_data[0]
        while True:
            if len(piece) > left:
                # More than was announced: nothing that follows on this connection can be trusted.
                self._keeps_open = False
                piece = piece[:left]
            if piece:
                left -= len(piece)
                yield piece
            if not left:
                return
            piece = await self._receive()
            if not piece:
                raise httpx.RemoteProtocolError(f"the body ends {left} bytes early", request=self._request)

    async def _parsed(self) -> AsyncGenerator[bytes]:
        """Yield a body in pieces, or up to the end of the connection, as h11 finds it."""
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)
        self._keeps_open &= self._protocol.their_state is h11.DONE

    async def _event(self, *, first: bool = False) -> h11.Event:
        """Return the next event of the protocol."""
        try:
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                data = await self._receive()
                if first and not data:
                    raise _NoAnswer("the server closed the connection without an answer", request=self._request)
                first = False
                self._protocol.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error), request=self._request) from error
        assert isinstance(event, h11.Event)
        return event

    async def _receive(self) -> bytes:
        async with self._failures(httpx.ReadError, httpx.ReadTimeout):
            return await self._connection.reader.read(PIECE_BYTES)

    @asynccontextmanager
    async def _failures(
        self, broken: type[httpx.NetworkError], late: type[httpx.TimeoutException]
    ) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError as error:
            raise late(str(error), request=self._request) from error
        except OSError as error:
            raise broken(str(error), request=self._request) from error

    async def aclose(self) -> None:
        """Keep the connection if the whole body was read, else close it."""
        if self._ended and self._keeps_open and self._connection.is_open:
            self._transport.put_back(self._connection)
        else:
            self._connection.close()
