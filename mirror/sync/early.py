"""Asks for a project's first records before the store is open, so that the answer travels while the process starts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from mirror.remote import runs as remote
from mirror.remote.about import About
from mirror.remote.client import Server
from mirror.remote.runs import Page, PageSize
from mirror.store.records import ProjectKey, RunRecord


class EarlyRecords:
    """The records of a project that nothing is mirrored of, requested from the moment on when this is created.

    Two pages at most are pulled before `pages` is read. An error of the request is raised by `pages`. `requests` counts
    what was sent before that.
    """

    def __init__(self, server: Server, project: ProjectKey, scope: Mapping[str, Any]) -> None:
        self.about = About(server_too=True)
        self.size = PageSize()
        self.requests: Counter[str] = Counter()
        self._pages = remote.records(server, project, scope=scope, filters=scope, size=self.size, about=self.about)
        self._first = asyncio.create_task(self._ask(server, project))

    async def _ask(self, server: Server, project: ProjectKey) -> Page[RunRecord] | None:
        self.requests = server.count_requests(str(project))
        return await anext(self._pages, None)

    async def pages(self) -> AsyncGenerator[Page[RunRecord]]:
        """Yield all pages, oldest runs first. Call it once."""
        async with aclosing(self._pages) as pages:
            if (first := await self._first) is not None:
                yield first
            async for page in pages:
                yield page

    async def close(self) -> None:
        """End the request, unless `pages` was read to its end."""
        self._first.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self._first
        await self._pages.aclose()
