"""How files come from storage: small ones as tasks of the event loop, each large one in a thread."""

from __future__ import annotations

from ssl import SSLContext
from urllib.request import getproxies

import httpx

from mirror.remote.thread_transport import ThreadTransport

LARGE = "large"
"""The extension of a request for a large file."""


def mounts(ssl_context: SSLContext) -> dict[str, httpx.AsyncBaseTransport]:
    """Return the transports of a client by scheme; a scheme with a proxy is left to httpx."""
    transport = StorageTransport(ssl_context)
    proxied = getproxies().keys()
    return {f"{scheme}://": transport for scheme in ("http", "https") if not proxied & {scheme, "all"}}


class StorageTransport(httpx.AsyncBaseTransport):
    """Sends a request the way that its `LARGE` extension asks for."""

    def __init__(self, ssl_context: SSLContext) -> None:
        self._ssl_context = ssl_context
        self._large = ThreadTransport(ssl_context)
        self._small: httpx.AsyncBaseTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer, whose body is still to be read. Raises the exceptions of httpx."""
        if request.extensions.get(LARGE):
            return await self._large.handle_async_request(request)
        if self._small is None:
            # Imported here: aiohttp takes 0.1 s.
            from mirror.remote.loop_transport import LoopTransport

            self._small = LoopTransport(self._ssl_context)
        return await self._small.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._large.aclose()
        if self._small is not None:
            await self._small.aclose()
