"""Downloads for httpx by aiohttp: a sixth of the CPU time that httpx's own transport takes for a file.

Redirects, content encodings and the answers themselves stay httpx's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from ssl import SSLContext

import aiohttp
import httpx
from yarl import URL

PIECE_BYTES = 1 << 18
"""The most bytes of a body that are passed on at a time."""

IDLE_SECONDS = 5.0
"""An unused connection is closed after this; most servers close theirs later."""

# The first that fits decides.
_ERRORS: dict[type[Exception], type[httpx.TransportError]] = {
    aiohttp.InvalidURL: httpx.UnsupportedProtocol,
    aiohttp.ConnectionTimeoutError: httpx.ConnectTimeout,
    TimeoutError: httpx.ReadTimeout,
    aiohttp.ClientConnectorError: httpx.ConnectError,
    aiohttp.ServerDisconnectedError: httpx.RemoteProtocolError,
    aiohttp.ClientResponseError: httpx.RemoteProtocolError,
    aiohttp.ClientPayloadError: httpx.RemoteProtocolError,
    aiohttp.ClientError: httpx.ReadError,
    OSError: httpx.ReadError,
}


class LoopTransport(httpx.AsyncBaseTransport):
    """Sends requests without a body over HTTP/1.1. As many connections are open as requests are under way, or were."""

    def __init__(self, ssl_context: SSLContext) -> None:
        self._ssl_context = ssl_context
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer, whose body is still to be read. Raises the exceptions of httpx."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._ssl_context, keepalive_timeout=IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=PIECE_BYTES,
            )
        limits = request.extensions.get("timeout") or {}
        with _errors_of_httpx(request):
            answer = await self._session.request(
                request.method,
                # As it is: an address is signed with its quoting.
                URL(str(request.url), encoded=True),
                headers=request.headers.multi_items(),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(sock_connect=limits.get("connect"), sock_read=limits.get("read")),
            )
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer, request), request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _errors_of_httpx(self._request):
            async for piece in self._answer.content.iter_any():
                yield piece

    async def aclose(self) -> None:
        """Keep the connection if the whole body was read, else close it."""
        if not self._answer.content.at_eof():
            self._answer.close()
        self._answer.release()


@contextmanager
def _errors_of_httpx(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except tuple(_ERRORS) as error:
        wanted = next(made for kind, made in _ERRORS.items() if isinstance(error, kind))
        raise wanted(str(error) or type(error).__name__, request=request) from error
