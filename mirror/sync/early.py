"""Asks for a project's first records before the store is open, so that the answer travels while the process starts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from mirror.remote import runs as remote
from mirror.remote.about import About
from mirror.remote.client import Server
from mirror.remote.page_size import PageSize
from mirror.remote.runs import Page
from mirror.store.records import ProjectKey, RunRecord

AHEAD = 2
"""Pages that wait to be used at most, so that a store that is slow to open does not fill the memory."""


class EarlyRecords:
    """The records of a project that nothing is mirrored of, requested and read from the moment on when this is created.

    An error of a request is raised by `pages`. `requests` counts what was sent.
    """

    def __init__(self, server: Server, project: ProjectKey, scope: Mapping[str, Any]) -> None:
        self.about = About(server_too=True)
        self.size = PageSize()
        self.requests: Counter[str] = Counter()
        self._arrived: asyncio.Queue[Page[RunRecord] | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(AHEAD)
        self._pages = remote.records(server, project, scope=scope, filters=scope, size=self.size, about=self.about)
        self._reading = asyncio.create_task(self._read(server, project))

    async def _read(self, server: Server, project: ProjectKey) -> None:
        self.requests = server.count_requests(str(project))
        try:
            async with aclosing(self._pages) as pages:
                async for page in pages:
                    await self._room.acquire()
                    self._arrived.put_nowait(page)
        finally:
            self._arrived.put_nowait(None)

    async def pages(self) -> AsyncGenerator[Page[RunRecord]]:
        """Yield all pages. Call it once."""
        while (page := await self._arrived.get()) is not None:
            self._room.release()
            yield page
        await self._reading

    async def close(self) -> None:
        """End the requests, unless `pages` was read to its end."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
