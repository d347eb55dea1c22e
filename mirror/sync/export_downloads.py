"""Downloads exported histories: addresses are asked for ahead of the downloads, files ahead of their reader."""

from __future__ import annotations

import asyncio
import logging
import shutil
import uuid
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from mirror.errors import AuthError, CommError
from mirror.remote import parquet_history
from mirror.remote.errors import AddressRefused, NoConnection, Unanswered
from mirror.remote.parquet_history import Export
from mirror.remote.sink import Source
from mirror.store.records import ProjectKey
from mirror.sync import request_windows
from mirror.sync.context import Context
from mirror.sync.request_windows import Span
from mirror.wandb_json import UNREADABLE

log = logging.getLogger("mirror.sync")

FEWEST_AHEAD = 8
MOST_AHEAD = 32
"""Runs whose files are under way or wait for their reader: few at first, more while the reader has to wait for them.

So no more connections are opened than the distance to the storage and the speed of the reader call for.
"""

SMALL_BYTES = 1_000_000
"""The files of a run are not written to disk if they are smaller than this in total; this bounds the memory."""


class Downloaded(Struct, frozen=True):
    """All files of a run's export; `folder` has those that are on disk."""

    span: Span
    export: Export
    sources: list[Source]
    folder: Path

    @property
    def size(self) -> int:
        """The bytes in memory."""
        return sum(len(source) for source in self.sources if isinstance(source, bytes))

    def delete(self) -> None:
        """Delete the files, if any are on disk."""
        delete(self.folder)


class Downloads:
    """The downloaded exports of `spans`, in this order. Runs without a usable export are appended to `left`.

    Use it as an async context manager: at its end downloads are stopped, and files that nobody took are deleted.
    """

    def __init__(self, context: Context, project: ProjectKey, spans: Sequence[Span], left: list[Span]) -> None:
        self._server = context.server
        self._spool = context.writer.spool
        self._project = project
        self._left = left
        self._spans = spans
        self._found: deque[tuple[Span, Export]] = deque()
        self._under_way: deque[asyncio.Task[Downloaded | None]] = deque()
        self._ahead = FEWEST_AHEAD
        self._changed = asyncio.Event()
        self._asks_again = True

    async def __aenter__(self) -> Self:
        self._finder = asyncio.create_task(self._find())
        self._finder.add_done_callback(lambda _: self._changed.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in (self._finder, *self._under_way):
            task.cancel()
        for downloaded in await asyncio.gather(self._finder, *self._under_way, return_exceptions=True):
            if isinstance(downloaded, Downloaded):
                downloaded.delete()

    @property
    def ready(self) -> bool:
        """True if the next run need not be waited for."""
        return bool(self._under_way) and self._under_way[0].done()

    async def next(self) -> Downloaded | None:
        """Return the next run with all its files, None after the last one.

        Raises AuthError, and Unreachable if the server itself, not just the storage, cannot be reached.
        """
        while True:
            while not self._under_way:
                if self._finder.done():
                    await self._finder
                    return None
                await self._change()
            self._adapt()
            downloaded = await self._under_way[0]
            self._under_way.popleft()
            self._start()
            if downloaded is not None:
                return downloaded

    def _adapt(self) -> None:
        """Download more runs at once if the reader has to wait, and fewer if all of them wait for the reader."""
        if not self._under_way[0].done():
            self._ahead = min(MOST_AHEAD, 2 * self._ahead)
            self._start()
        elif all(task.done() for task in self._under_way):
            self._ahead = max(FEWEST_AHEAD, self._ahead - 1)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _find(self) -> None:
        """Ask for the addresses of the next runs while those of the runs before are used."""
        for start in range(0, len(self._spans), request_windows.REQUEST_RUNS):
            while len(self._found) >= request_windows.REQUEST_RUNS:
                await self._change()
            chunk = self._spans[start : start + request_windows.REQUEST_RUNS]
            try:
                exports = await self._exports([span.run_id for span in chunk])
            except Unanswered as error:
                log.info("%s: exported histories of %d runs are not used: %s", self._project, len(chunk), error)
                exports = {}
            for span in chunk:
                if span.run_id in exports:
                    self._found.append((span, exports[span.run_id]))
                else:
                    self._left.append(span)
            self._start()

    async def _exports(self, run_ids: Sequence[str]) -> dict[str, Export]:
        return await parquet_history.find(self._server, self._project, run_ids)

    def _start(self) -> None:
        """Start downloads until `_ahead` are under way or wait for the reader."""
        while self._found and len(self._under_way) < self._ahead:
            self._under_way.append(asyncio.create_task(self._download(*self._found.popleft())))
        self._changed.set()

    async def _download(self, span: Span, export: Export) -> Downloaded | None:
        """Download all files of a run; None if it is pulled as lines instead."""
        self._spool.mkdir(mode=0o700, exist_ok=True)
        folder = self._spool / uuid.uuid4().hex
        downloaded = None
        try:
            if parquet_history.FEATURE not in self._server.missing_features:
                try:
                    downloaded = Downloaded(span, export, await self._sources(export, folder), folder)
                except AddressRefused as error:
                    downloaded = await self._again(span, folder, error)
        except AuthError:
            raise
        except (NoConnection, Unanswered) as error:
            # Storage is another host, which a network may block: one timeout is enough.
            self._server.missing_features.add(parquet_history.FEATURE)
            log.warning("exported histories are not used any more: %s", error)
        except (CommError, *UNREADABLE) as error:
            log.info("%s/%s: its exported history is not used: %s", self._project, span.run_id, error)
        finally:
            if downloaded is None:
                delete(folder)
        if downloaded is None:
            self._left.append(span)
        return downloaded

    async def _again(self, span: Span, folder: Path, refused: AddressRefused) -> Downloaded | None:
        """Download with addresses that are asked for again: the former may have expired while they waited."""
        if not self._asks_again:
            raise refused
        try:
            export = (await self._exports([span.run_id])).get(span.run_id)
        except Unanswered as error:
            raise refused from error
        if export is None:
            return None
        delete(folder)
        try:
            return Downloaded(span, export, await self._sources(export, folder), folder)
        except AddressRefused:
            # New addresses are refused, too, so the reason is not their age.
            self._asks_again = False
            raise

    async def _sources(self, export: Export, folder: Path) -> list[Source]:
        """Download all files of a run; once one of them is refused, nothing more is written."""
        room = SMALL_BYTES // len(export.urls)
        download = self._server.download_to
        tasks = [
            asyncio.create_task(download(url, folder / f"{number}.parquet", in_memory=room))
            for number, url in enumerate(export.urls)
        ]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def delete(folder: Path) -> None:
    """Delete the folder of a run's files, if one was made."""
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
