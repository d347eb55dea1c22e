"""The current client of the server, and replaced ones that are still in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mirror.remote.client import Server


class Clients:
    """Lends out the current client. A replaced one is closed when its last user is done."""

    def __init__(self, current: Server) -> None:
        self.current = current
        self._borrowers: Counter[Server] = Counter()

    @asynccontextmanager
    async def borrowed(self) -> AsyncIterator[Server]:
        """Borrow the current client; it stays open until the end of the block."""
        server = self.current
        self._borrowers[server] += 1
        try:
            yield server
        finally:
            self._borrowers[server] -= 1
            await self._close_unused(server)

    async def replace(self, server: Server) -> None:
        """Lend out this client from now on; it continues the counters of the former one."""
        former, self.current = self.current, server
        server.requests, server.retries = former.requests, former.retries
        server.bytes_received += former.bytes_received
        former.bytes_received = 0
        await self._close_unused(former)

    async def close(self) -> None:
        """Close all clients, in use or not."""
        for server in {self.current, *self._borrowers}:
            await server.close()

    async def _close_unused(self, server: Server) -> None:
        if server is self.current or self._borrowers[server]:
            return
        del self._borrowers[server]
        self.current.bytes_received += server.bytes_received
        await server.close()
