"""Pulls histories that the server has exported to files, at a tenth of the cost of pulling their lines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import aclosing

from msgspec import Struct

from mirror.errors import CommError
from mirror.protocol import LIVE_STATES
from mirror.remote import parquet_history
from mirror.remote.history import Window
from mirror.remote.json_history import KeyGlobs
from mirror.remote.parquet_history import Export, Part
from mirror.store.records import HistoryPage, ProjectKey
from mirror.sync import plan, request_windows
from mirror.sync.context import Context
from mirror.sync.export_downloads import Downloaded, Downloads
from mirror.sync.history_batch import Batch
from mirror.wandb_json import UNREADABLE

log = logging.getLogger("mirror.sync")

FEWEST_ROWS = 1000
"""With fewer rows, lines are faster: a file costs a request for its address and one for its content."""

IN_MEMORY = 250_000
"""A run with at most this many values is read at once; a longer one stays in its files until its turn."""

GROUP_RUNS = 8
GROUP_BYTES = 4_000_000
GROUP_VALUES = 500_000
"""Runs that are read in one go: a change between threads takes as long as reading a small file.

In a group with more values than this, the last runs are not read at once. This bounds the memory.
"""


class _Files(Struct):
    """A run's downloaded files: their parts in order, and their pages if they were read at once.

    There are no parts if the files cannot be used.
    """

    downloaded: Downloaded
    parts: Sequence[Part] = ()
    pages: list[HistoryPage] | None = None


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
        # One group is read at a time: two threads that read take the interpreter's lock from those that write.
        async with Downloads(self._context, self._project, large, self.left) as downloads:
            while group := await self._group(downloads):
                async with aclosing(self._pages_of(group)) as batches:
                    async for batch in batches:
                        yield batch

    async def _group(self, downloads: Downloads) -> list[Downloaded]:
        """Return the next run, and runs after it that need not be waited for; none after the last one."""
        group: list[Downloaded] = []
        size = 0
        try:
            while not group or (downloads.ready and len(group) < GROUP_RUNS and size < GROUP_BYTES):
                downloaded = await downloads.next()
                if downloaded is None:
                    break
                group.append(downloaded)
                size += downloaded.size
        except BaseException:
            _delete(group)
            raise
        return group

    async def _pages_of(self, group: list[Downloaded]) -> AsyncGenerator[Batch]:
        """Yield the pages of these runs, and delete their files."""
        try:
            read = await asyncio.get_running_loop().run_in_executor(self._parser, self._read_group, group)
            while read:
                # Values that are committed need no memory any more.
                files = read.pop(0)
                if not files.parts:
                    self.left.append(files.downloaded.span)
                    continue
                async with aclosing(self._read(files)) as batches:
                    async for batch in batches:
                        yield batch
        finally:
            _delete(group)

    def _read_group(self, group: Sequence[Downloaded]) -> list[_Files]:
        """Check the files of these runs, and read the small ones. A damaged file does not affect the others."""
        read = []
        room = GROUP_VALUES
        for downloaded in group:
            files = _Files(downloaded)
            try:
                files = self._inspect(downloaded, min(IN_MEMORY, room))
            except (CommError, *UNREADABLE) as error:
                run_id = downloaded.span.run_id
                log.info("%s/%s: its exported history is not used: %s", self._project, run_id, error)
            if files.pages is not None or not files.parts:
                downloaded.delete()
            if files.pages is not None:
                room -= sum(page.values.num_rows for page in files.pages)
            read.append(files)
        return read

    def _inspect(self, downloaded: Downloaded, at_once: int) -> _Files:
        """Return the parts of the files, and their pages if they have at most `at_once` values."""
        span, export = downloaded.span, downloaded.export
        parts = parquet_history.parts(downloaded.sources, span.first, self._keys, at_once=at_once)
        if not parts or not self._adds_up(span, parts, export):
            return _Files(downloaded)
        if sum(part.values for part in parts) > at_once:
            return _Files(downloaded, parts)
        pages = [page for part in parts for page in parquet_history.pages(span.run_id, part, self._keys)]
        return _Files(downloaded, parts, pages)

    def _adds_up(self, span: request_windows.Span, parts: Sequence[Part], export: Export) -> bool:
        """Return True if files and live steps have as many lines as the server counts; a live run may have more."""
        live = sum(step > parts[-1].last for step in export.live_steps)
        rows = sum(part.rows for part in parts) + live
        return rows == span.rows or (rows > span.rows and self._needs[span.run_id].run.state in LIVE_STATES)

    async def _read(self, files: _Files) -> AsyncGenerator[Batch]:
        """Yield the pages of a run; the last window extends to the step up to which nothing is missing.

        Live steps are left to be pulled as lines, as is the rest of a file that turns out to be unreadable.
        """
        span, last = files.downloaded.span, files.parts[-1].last
        live = [step for step in files.downloaded.export.live_steps if step > last]
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
            files.downloaded.delete()

    async def _next(self, pages: Iterator[HistoryPage]) -> HistoryPage | None:
        return await asyncio.get_running_loop().run_in_executor(self._parser, next, pages, None)


def _delete(group: Sequence[Downloaded]) -> None:
    for downloaded in group:
        downloaded.delete()
