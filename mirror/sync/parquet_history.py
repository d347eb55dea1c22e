"""Pulls histories that the server has exported to files: a tenth of the work that their lines would make."""

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
from mirror.remote import parquet_history
from mirror.remote.errors import NoConnection, Unanswered
from mirror.remote.history import Window
from mirror.remote.json_history import KeyGlobs
from mirror.remote.parquet_history import Export, Part
from mirror.remote.sink import Source
from mirror.store.records import HistoryPage, ProjectKey
from mirror.sync import plan
from mirror.sync.context import Context
from mirror.sync.history_batch import Batch
from mirror.wandb_json import UNREADABLE

log = logging.getLogger("mirror.sync")

FEWEST_ROWS = 1000
"""Fewer lines come sooner as lines: a file costs a question for its address and a request of its own."""

RUNS_AHEAD = 8
"""Runs whose files are fetched while an earlier one's are read."""

IN_MEMORY = 250_000
"""Values of a run that are read while they wait; those of a longer one wait in its files."""

SMALL_BYTES = 4_000_000
"""Files of a run that are smaller than this together are not written to the disk."""


@dataclass
class _Files:
    """A run's downloaded files: what they hold in order, already read where it is little."""

    span: plan.Span
    folder: Path
    parts: list[Part]
    live_steps: tuple[int, ...]
    pages: list[HistoryPage] | None


class Exported:
    """Takes the runs that have exports; `left` is what must come as lines, complete once `fetch` has ended."""

    def __init__(
        self,
        context: Context,
        project: ProjectKey,
        keys: KeyGlobs,
        parser: Executor,
        needs: Mapping[str, plan.Need],
    ) -> None:
        self.left: list[plan.Span] = []
        self._context = context
        self._project = project
        self._keys = keys
        self._parser = parser
        self._needs = needs

    async def fetch(self, spans: Sequence[plan.Span]) -> AsyncGenerator[Batch]:
        """The exported part of each run, in order of its steps.

        Raises AuthError, and Unreachable where it is not just the storage.
        """
        large: list[plan.Span] = []
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

    async def _find(self, spans: Sequence[plan.Span]) -> AsyncGenerator[tuple[plan.Span, Export]]:
        for start in range(0, len(spans), plan.REQUEST_RUNS):
            some = spans[start : start + plan.REQUEST_RUNS]
            try:
                found = await parquet_history.find(self._context.server, self._project, [span.run_id for span in some])
            except Unanswered as error:
                log.info("%s: exported histories of %d runs are not used: %s", self._project, len(some), error)
                found = {}
            for span in some:
                if span.run_id in found:
                    yield span, found[span.run_id]
                else:
                    self.left.append(span)

    async def _download(self, span: plan.Span, export: Export) -> _Files | None:
        """All files of a run, and what is in them; None where the run is left to the lines."""
        folder = self._context.writer.spool / uuid.uuid4().hex
        found = None
        try:
            sources = await self._sources(export, folder)
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._parser, self._look, span, export, sources, folder)
        except AuthError:
            raise
        except (NoConnection, Unanswered) as error:
            # Storage is another host, which a network may not let through: waiting for it once is enough.
            self._context.server.missing_features.add(parquet_history.FEATURE)
            log.warning("exported histories are not used any more: %s", error)
        except (CommError, *UNREADABLE) as error:
            log.info("%s/%s: its exported history is not used: %s", self._project, span.run_id, error)
        finally:
            if found is None:
                _delete(folder)
        if found is None:
            self.left.append(span)
        return found

    async def _sources(self, export: Export, folder: Path) -> list[Source]:
        """All files of a run; once one of them is refused, nothing more is written."""
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

    def _look(self, span: plan.Span, export: Export, sources: Sequence[Source], folder: Path) -> _Files | None:
        """What the files hold; None where they cannot be taken."""
        found = parquet_history.parts(sources, span.first, self._keys)
        if not found or not self._adds_up(span, found, export):
            return None
        pages = None
        if sum(part.values for part in found) <= IN_MEMORY:
            pages = [page for part in found for page in parquet_history.pages(span.run_id, part, self._keys)]
            _delete(folder)
        return _Files(span, folder, found, export.live_steps, pages)

    def _adds_up(self, span: plan.Span, found: Sequence[Part], export: Export) -> bool:
        """Whether files and live steps hold as many lines as the server counts; a live run's count is past already."""
        live = sum(step > found[-1].last for step in export.live_steps)
        rows = sum(part.rows for part in found) + live
        return rows == span.rows or (rows > span.rows and self._needs[span.run_id].run.state in plan.LIVE_STATES)

    async def _read(self, files: _Files) -> AsyncGenerator[Batch]:
        """Pages of a run, the last of them as far as nothing is missing; what is live is left to the lines.

        So is the rest of a file that turns out to be unreadable.
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
                self.left.append(plan.Span(span.run_id, last + 1, max(span.last, live[-1]), len(live)))
        except (CommError, *UNREADABLE) as error:
            log.info("%s/%s: the rest of its export is not used: %s", self._project, span.run_id, error)
            ends = max([span.last, last, *live])
            self.left.append(plan.Span(span.run_id, reached + 1, ends, max(span.rows - rows, 1)))
        finally:
            _delete(files.folder)

    async def _next(self, pages: Iterator[HistoryPage]) -> HistoryPage | None:
        return await asyncio.get_running_loop().run_in_executor(self._parser, next, pages, None)


def _delete(folder: Path) -> None:
    """Delete the folder of a run's files, if there was any need for it."""
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
