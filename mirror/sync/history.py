"""Pulls the history of runs: many in one request, fetched ahead, committed in order with the cursors they move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

from mirror.errors import CommError
from mirror.remote.history import Answer, HistoryReader, NoHistory, Window
from mirror.remote.json_history import KeyGlobs, parse
from mirror.store.records import HistoryMark, HistoryPage, ProjectKey
from mirror.store.writes import Writes
from mirror.sync import mark, plan
from mirror.sync.ahead import in_order
from mirror.sync.context import Context, PassResult, utc_now
from mirror.sync.flaws import is_of_data
from mirror.sync.history_batch import Batch
from mirror.sync.parquet_history import Exported
from mirror.sync.scout import locate
from mirror.wandb_json import unreadable

AHEAD = 4
"""Answers that may wait to be committed; with plan.REQUEST_BYTES this bounds the memory of a pass."""

COMMIT_VALUES = 2_000_000
COMMIT_SECONDS = 4.0
"""When answers are committed: few large transactions take half the time of many small ones, and bound what is lost.

While so many values are written, as many more are gathered; both together bound the memory.
"""


async def pull(context: Context, project: ProjectKey, needs: Sequence[plan.Need], result: PassResult) -> None:
    """Bring the history of all these runs up to what the server told of them.

    A run of which other lines came than the server counts is taken again as a whole, as is one whose mirrored lines are
    no longer what the server has. One that cannot be read, or still does not add up, is set aside with its error, to be
    tried again later, and does not stop the others.
    Raises Unreachable or AuthError when nothing more can be had at all; what was committed stays.
    """
    again = await _pull(context, project, needs, result)
    if again:
        await _pull(context, project, again, result)


async def _pull(
    context: Context, project: ProjectKey, needs: Sequence[plan.Need], result: PassResult
) -> list[plan.Need]:
    """Pull once; the needs that are left."""
    job = _Job(context, project, result, needs)
    try:
        return await job.run()
    except NoHistory as error:
        # Should it be these runs after all, the next pass goes on to the others.
        await job.give_up(error.failed)
        raise
    finally:
        job.parser.shutdown(wait=False, cancel_futures=True)


class _Job:
    """One project's pull."""

    def __init__(self, context: Context, project: ProjectKey, result: PassResult, needs: Sequence[plan.Need]) -> None:
        self.context = context
        self.project = project
        self.result = result
        self.needs = {need.run.run_id: need for need in needs}
        self.keys = KeyGlobs(context.scope.history)
        self.reader = HistoryReader(context.server, project, list(self.needs))
        self.size = plan.RowSize()
        self.rows_to_come = 0
        self.parser = ThreadPoolExecutor(max_workers=2, thread_name_prefix="parser")
        self.dropped: set[str] = set()
        self.marks: dict[str, HistoryMark] = {}
        self.replaced: set[str] = set()
        self.ended: set[str] = set()

    async def run(self) -> list[plan.Need]:
        """Pull everything; what is to be pulled again, as a whole."""
        staged = await self._staged()
        self.marks = await self._marks()
        spans: list[plan.Span] = []
        for need in self.needs.values():
            run, seen = need.run, self.marks.get(need.run.run_id)
            rows, last = staged[run.run_id] if need.whole else (run.rows, run.last_step)
            missing = max(run.server_rows - rows, 0)
            self.context.progress.rows_expected(self.project, missing)
            self.rows_to_come += missing
            # The last mirrored line comes once more, to see that the server still has it.
            first = 0 if last is None else last + 1 if seen is None else seen.step
            end = run.server_last_step
            if end is None and missing:
                end = plan.LAST_STEP
            if end is None or (seen is None and first > end):
                await self._complete(run.run_id)
            else:
                end = first if need.check else max(end, first)
                spans.append(plan.Span(run.run_id, first, end, max(missing + (seen is not None), 1)))
        ends = {span.run_id: span.last for span in spans}
        # One batch is written while the next one is gathered.
        writing: asyncio.Task[None] | None = None
        try:
            async with aclosing(self._fetch_all(spans)) as fetched, aclosing(self._gather(fetched)) as batches:
                async for batch in batches:
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(self._take(batch, ends))
        finally:
            if writing is not None:
                await writing
        return await self._left()

    async def _marks(self) -> dict[str, HistoryMark]:
        """What is mirrored of the last line of each run that is not taken as a whole."""
        names = [run_id for run_id, need in self.needs.items() if not need.whole and need.run.last_step is not None]
        return await self.context.writer.read(lambda store: store.history_marks(self.project, names)) if names else {}

    async def _left(self) -> list[plan.Need]:
        """The runs that did not come out right, to be taken as a whole."""
        tried = {run_id: need for run_id, need in self.needs.items() if not need.whole}
        tried = {run_id: need for run_id, need in tried.items() if run_id not in self.dropped - self.replaced}
        if not tried:
            return []
        known = await self.context.writer.read(lambda store: store.known_runs(self.project, list(tried)))
        again: list[plan.Need] = []
        short: dict[str, str] = {}
        for run_id, need in tried.items():
            now = known[run_id]
            if run_id in self.replaced or (plan.miscounts(now) and need.run.rows):
                again.append(plan.Need(now, whole=True, thorough=True))
            elif plan.miscounts(now):
                # All of it was asked for just now.
                short[run_id] = self._miscounted(now.server_rows, now.rows, run_id)
            elif now.rows < now.server_rows and run_id in self.ended:
                self.result.failed[run_id] = self._miscounted(now.server_rows, now.rows, run_id)

        def write(tx: Writes) -> None:
            for run_id, error in short.items():
                self._set_aside(tx, run_id, error)

        if short:
            await self.context.writer.write(write)
        return again

    def _miscounted(self, told: int, gave: int, run_id: str) -> str:
        return (
            f"the server counts {told} history lines of {self.project}/{run_id} but gave {gave}; "
            "what it gave is mirrored"
        )

    async def _take(self, batch: Batch, ends: Mapping[str, int]) -> None:
        """Commit what came, and complete the runs of which it is the end."""
        await self._commit(batch)
        for window in batch.windows:
            if window.run_id not in self.dropped and window.end > ends[window.run_id]:
                await self._complete(window.run_id)

    async def _gather(self, batches: AsyncGenerator[Batch]) -> AsyncGenerator[Batch]:
        """Put answers together until they are worth a transaction, or the first of them has waited long enough."""
        gathered = Batch([])
        started = time.monotonic()
        try:
            async for batch in batches:
                if not gathered.windows:
                    started = time.monotonic()
                gathered.add(batch)
                if gathered.values >= COMMIT_VALUES or time.monotonic() - started >= COMMIT_SECONDS:
                    yield gathered
                    gathered = Batch([])
        except CommError:
            # What came before the failure is kept.
            if gathered.windows:
                yield gathered
            raise
        if gathered.windows:
            yield gathered

    async def _fetch_all(self, spans: Sequence[plan.Span]) -> AsyncGenerator[Batch]:
        """What is exported comes as files, and everything else as lines."""
        exported = Exported(self.context, self.project, self.keys, self.parser, self.needs)
        async with aclosing(exported.fetch(spans)) as files:
            async for batch in files:
                yield batch
        left = await locate(self.context.server, self.project, exported.left, self.size)
        async with aclosing(self._fetch_in_order(left)) as lines:
            async for batch in lines:
                yield batch

    async def _staged(self) -> dict[str, tuple[int, int | None]]:
        """What an interrupted pass had gathered of the runs that are replaced as a whole."""
        whole = [run_id for run_id, need in self.needs.items() if need.whole]
        if not whole:
            return {}

        def look(tx: Writes) -> dict[str, tuple[int, int | None]]:
            found: dict[str, tuple[int, int | None]] = {}
            for run_id in whole:
                run = self.needs[run_id].run
                rows, last = tx.staged(self.project, run_id)
                if rows > run.server_rows or not run.refresh:
                    tx.refresh_history(self.project, [run_id])
                    rows, last = 0, None
                found[run_id] = (rows, last)
            return found

        return await self.context.writer.write(look)

    async def _fetch_in_order(self, spans: Sequence[plan.Span]) -> AsyncGenerator[Batch]:
        """Fetch a few requests ahead of the one that is committed, so that network, parsing and loading overlap."""
        jobs = plan.requests(spans, self.size)
        trouble = self.reader.in_trouble
        answers = in_order(jobs, self._fetch, ahead=AHEAD, in_trouble=trouble, dropped=self.dropped)
        async with aclosing(answers):
            async for batch in answers:
                yield batch

    async def _fetch(self, windows: list[Window]) -> Batch:
        answer = await self.reader.read(windows)
        # Not more threads: they would take turns at the interpreter, and hold up the one that writes.
        return await asyncio.get_running_loop().run_in_executor(self.parser, self._parse, windows, answer)

    def _parse(self, windows: list[Window], answer: Answer) -> Batch:
        batch = Batch(windows, failed=answer.failed)
        for window, texts in answer.lines.items():
            if texts is None:
                batch.gone.append(window.run_id)
                continue
            self.size.learn(len(texts), sum(map(len, texts)))
            try:
                # Where the last step is not known, lines may come behind the last one; only up to it all is whole.
                whole_to = None if self.needs[window.run_id].run.server_last_step is None else window.end - 1
                page = parse(window.run_id, texts, self.keys, whole_to=whole_to)
            except CommError as error:
                batch.failed[window.run_id] = error
                continue
            batch.pages.append((window, page))
        return batch

    async def _commit(self, batch: Batch) -> None:
        """Rows and the cursors that cover them, in one transaction."""
        for run_id in batch.gone:
            self.dropped.add(run_id)
        fresh = {run_id: error for run_id, error in batch.failed.items() if run_id not in self.dropped}
        self.dropped.update(fresh)
        came = [(window, self._compared(page)) for window, page in batch.pages]
        # A page behind a hole would be taken for whole up to its end, so nothing of a failed run is kept.
        pages = [page for window, page in came if window.run_id not in self.dropped]
        append = [page for page in pages if not self.needs[page.run_id].whole]
        stage = [page for page in pages if self.needs[page.run_id].whole]

        rows = sum(page.rows for page in pages)
        values = sum(page.values.num_rows for page in pages)
        self.rows_to_come = max(0, self.rows_to_come - rows)
        to_come = round(self.rows_to_come * values / rows) if rows else 0

        await self._write(append, stage, fresh, to_come)
        self.result.rows += rows
        self.context.progress.rows_done(self.project, rows)

    async def _write(
        self,
        append: Sequence[HistoryPage],
        stage: Sequence[HistoryPage],
        failed: Mapping[str, CommError],
        to_come: int,
    ) -> None:
        """Write these pages in one transaction; a run whose values the store does not take is set aside."""

        def commit(tx: Writes) -> None:
            if append:
                tx.append_history(self.project, append, to_come=to_come)
            if stage:
                tx.stage_history(self.project, stage, to_come=to_come)
            for run_id, error in failed.items():
                self._set_aside(tx, run_id, str(error))

        try:
            await self.context.writer.write(commit)
        except Exception as error:
            names = list(dict.fromkeys(page.run_id for page in [*append, *stage]))
            if not names or not is_of_data(error):
                raise
            if len(names) == 1 and not failed:
                self.dropped.add(names[0])
                await self.give_up({names[0]: unreadable(f"history of {names[0]}", error)})
                return
            await self._write([], [], failed, 0)
            for name in names:
                one = [[page for page in pages if page.run_id == name] for pages in (append, stage)]
                await self._write(one[0], one[1], {}, to_come)

    def _compared(self, page: HistoryPage) -> HistoryPage:
        """The page without the run's last mirrored line; a run that has another line there is taken as a whole."""
        run = self.needs[page.run_id].run
        last = self.marks.pop(page.run_id, None)
        if last is not None and page.run_id not in self.dropped:
            if mark.fits(last, page, self.keys):
                page = mark.behind(last, page)
            else:
                self.replaced.add(page.run_id)
                self.dropped.add(page.run_id)
        if run.state in plan.LIVE_STATES and mark.reaches(page, run.server_last_step):
            self.ended.add(page.run_id)
        return page

    async def give_up(self, failed: Mapping[str, CommError]) -> None:
        """Set aside the runs that were tried in vain."""

        def write(tx: Writes) -> None:
            for run_id, error in failed.items():
                self._set_aside(tx, run_id, str(error))

        await self.context.writer.write(write)

    def _set_aside(self, tx: Writes, run_id: str, error: str) -> None:
        attempts = self.needs[run_id].run.attempts
        tx.set_aside(self.project, run_id, error=error, next_try_at=plan.retry_at(attempts, utc_now()))
        self.result.failed[run_id] = error

    async def _complete(self, run_id: str) -> None:
        """All windows of the run are in: swap a replaced history, and hold the count against the server's."""
        need = self.needs[run_id]
        run = need.run
        last = run.server_last_step

        def finish(tx: Writes) -> None:
            rows, staged_last = tx.staged(self.project, run_id)
            end = staged_last if last is None else last
            tx.swap_history(self.project, run_id, rows=rows, last_step=end)
            if rows != run.server_rows and run.state not in plan.LIVE_STATES:
                self._set_aside(tx, run_id, self._miscounted(run.server_rows, rows, run_id))
            elif rows < run.server_rows and run_id in self.ended:
                self.result.failed[run_id] = self._miscounted(run.server_rows, rows, run_id)

        if need.whole:
            await self.context.writer.write(finish)
