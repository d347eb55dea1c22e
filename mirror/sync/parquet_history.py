"""Pulls histories that the server has exported to files, at a tenth of the cost of pulling their lines."""

from __future__ import annotations

import asyncio
import logging
import shutil
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from mirror.errors import AuthError, CommError
from mirror.protocol import LIVE_STATES
from mirror.remote import parquet_history
from mirror.remote.errors import NoConnection, Unanswered
from mirror.remote.history import Window
from mirror.remote.json_history import KeyGlobs
from mirror.remote.parquet_history import Export, Part
from mirror.remote.sink import Source
from mirror.store.records import HistoryPage, ProjectKey
from mirror.sync import plan, request_windows
from mirror.sync.context import Context
from mirror.sync.history_batch import Batch
from mirror.wandb_json import UNREADABLE

log = logging.getLogger("mirror.sync")

FEWEST_ROWS = 1000
"""With fewer rows, lines are faster: a file costs a request for its address and one for its content."""

RUNS_AHEAD = 8
"""Runs whose files are downloaded while those of an earlier run are read."""

IN_MEMORY = 250_000
"""A run with at most this many values is read at once; a longer one stays in its files until its turn."""

SMALL_BYTES = 4_000_000
"""The files of a run are not written to disk if they are smaller than this in total."""


@dataclass
class _Files:
    """A run's downloaded files: their parts in order, and their pages if they were read at once."""

    span: request_windows.Span
    folder: Path
    parts: list[Part]
    live_steps: tuple[int, ...]
    pages: list[HistoryPage] | None


class Exported:
    """Pulls the runs that have exports; `left` must be pulled as lines, and is complete once `fetch` has ended."""

    def __init__(
        self,
        context: Context,
        project: ProjectKey,
        keys: KeyGlobs,
        parser: Executor,
        needs: Mapping[str, plan.Need],
    ) -> None:
        self.left: list[request_windows.Span] = []
        self._context = context
        self._project = project
        self._keys = keys
        self._parser = parser
        self._needs = needs

    async def fetch(self, spans: Sequence[request_windows.Span]) -> AsyncGenerator[Batch]:
        """Yield the exported part of each run, in the order of its steps.

        Raises AuthError, and Unreachable if the server itself, not just the storage, cannot be reached.
        """
        large: list[request_windows.Span] = []
        for span in spans:
            wanted = span.rows >= FEWEST_ROWS or self._needs[span.run_id].thorough
            (large if wanted else self.left).append(span)
        under_way: deque[asyncio.Task[_Files | None]] = deque()
        try:
            async with aclosing(self._find(large)) as found:
                async for span, export in found:
                    under_way.append(asyncio.create_task(self._download(span, export)))
                    if len(under_way) >= RUNS_AHEAD:
                        async with aclosing(self._next_run(under_way)) as batches:
                            async for batch in batches:
                                yield batch
            while under_way:
                async with aclosing(self._next_run(under_way)) as batches:
                    async for batch in batches:
                        yield batch
        finally:
            for task in under_way:
                task.cancel()
            for files in await asyncio.gather(*under_way, return_exceptions=True):
                if isinstance(files, _Files):
                    _delete(files.folder)

    async def _next_run(self, under_way: deque[asyncio.Task[_Files | None]]) -> AsyncGenerator[Batch]:
        files = await under_way[0]
        under_way.popleft()
        if files is not None:
            async with aclosing(self._read(files)) as batches:
                async for batch in batches:
                    yield batch

    async def _find(self, spans: Sequence[request_windows.Span]) -> AsyncGenerator[tuple[request_windows.Span, Export]]:
        for start in range(0, len(spans), request_windows.REQUEST_RUNS):
            chunk = spans[start : start + request_windows.REQUEST_RUNS]
            try:
                exports = await parquet_history.find(
                    self._context.server, self._project, [span.run_id for span in chunk]
                )
            except Unanswered as error:
                log.info("%s: exported histories of %d runs are not used: %s", self._project, len(chunk), error)
                exports = {}
            for span in chunk:
                if span.run_id in exports:
                    yield span, exports[span.run_id]
                else:
                    self.left.append(span)

    async def _download(self, span: request_windows.Span, export: Export) -> _Files | None:
        """Download and check all files of a run; None if the run is pulled as lines instead."""
        spool = self._context.writer.spool
        spool.mkdir(mode=0o700, exist_ok=True)
        folder = spool / uuid.uuid4().hex
        files = None
        try:
            sources = await self._sources(export, folder)
            loop = asyncio.get_running_loop()
            files = await loop.run_in_executor(self._parser, self._inspect, span, export, sources, folder)
        except AuthError:
            raise
        except (NoConnection, Unanswered) as error:
            # Storage is another host, which a network may block: one timeout is enough.
            self._context.server.missing_features.add(parquet_history.FEATURE)
            log.warning("exported histories are not used any more: %s", error)
        except (CommError, *UNREADABLE) as error:
            log.info("%s/%s: its exported history is not used: %s", self._project, span.run_id, error)
        finally:
            if files is None:
                _delete(folder)
        if files is None:
            self.left.append(span)
        return files

    async def _sources(self, export: Export, folder: Path) -> list[Source]:
        """Download all files of a run; once one of them is refused, nothing more is written."""
        room = SMALL_BYTES // len(export.urls)
        download = self._context.server.download_to
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

    def _inspect(
        self, span: request_windows.Span, export: Export, sources: Sequence[Source], folder: Path
    ) -> _Files | None:
        """Return the parts of the files; None if they cannot be used."""
        parts = parquet_history.parts(sources, span.first, self._keys)
        if not parts or not self._adds_up(span, parts, export):
            return None
        pages = None
        if sum(part.values for part in parts) <= IN_MEMORY:
            pages = [page for part in parts for page in parquet_history.pages(span.run_id, part, self._keys)]
            _delete(folder)
        return _Files(span, folder, parts, export.live_steps, pages)

    def _adds_up(self, span: request_windows.Span, parts: Sequence[Part], export: Export) -> bool:
        """Return True if files and live steps have as many lines as the server counts; a live run may have more."""
        live = sum(step > parts[-1].last for step in export.live_steps)
        rows = sum(part.rows for part in parts) + live
        return rows == span.rows or (rows > span.rows and self._needs[span.run_id].run.state in LIVE_STATES)

    async def _read(self, files: _Files) -> AsyncGenerator[Batch]:
        """Yield the pages of a run; the last window extends to the step up to which nothing is missing.

        Live steps are left to be pulled as lines, as is the rest of a file that turns out to be unreadable.
        """
        span, last = files.span, files.parts[-1].last
        live = [step for step in files.live_steps if step > last]
        end = last if live else max(last, span.last)
        reached, rows = span.first - 1, 0
        try:
            if files.pages is not None:
                windows = [Window(span.run_id, span.first, end + 1)]
                yield Batch(windows, [(windows[0], page) for page in files.pages])
            else:
                for part in files.parts:
                    pages = parquet_history.pages(span.run_id, part, self._keys)
                    while (page := await self._next(pages)) is not None:
                        assert page.last_step is not None
                        final = page.last_step == last
                        window = Window(span.run_id, part.first, (end if final else page.last_step) + 1)
                        yield Batch([window], [(window, page)])
                        reached, rows = page.last_step, rows + page.rows
            if live:
                self.left.append(request_windows.Span(span.run_id, last + 1, max(span.last, live[-1]), len(live)))
        except (CommError, *UNREADABLE) as error:
            log.info("%s/%s: the rest of its export is not used: %s", self._project, span.run_id, error)
            ends = max([span.last, last, *live])
            self.left.append(request_windows.Span(span.run_id, reached + 1, ends, max(span.rows - rows, 1)))
        finally:
            _delete(files.folder)

    async def _next(self, pages: Iterator[HistoryPage]) -> HistoryPage | None:
        return await asyncio.get_running_loop().run_in_executor(self._parser, next, pages, None)


def _delete(folder: Path) -> None:
    """Delete the folder of a run's files, if one was made."""
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
