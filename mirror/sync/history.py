"""Pulls the history of runs: many runs per request, fetched ahead, committed in order together with their cursors."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial

from mirror.errors import CommError
from mirror.protocol import LIVE_STATES
from mirror.remote.history import NoHistory, Window
from mirror.remote.json_history import KeyGlobs
from mirror.store import bulk, history_cursors, refresh, retries, staging
from mirror.store import history as stored_history
from mirror.store import runs as stored_runs
from mirror.store.database import Database
from mirror.store.records import HistoryMark, HistoryPage, ProjectKey
from mirror.store.transaction import Transaction
from mirror.sync import mark, plan, request_windows
from mirror.sync.context import Context, PassResult, utc_now
from mirror.sync.flaws import is_of_data
from mirror.sync.history_batch import Batch
from mirror.sync.lines import LineFetcher
from mirror.sync.parquet_history import Exported
from mirror.threads import in_thread
from mirror.wandb_json import unreadable

AHEAD = 4
"""Answers that may wait to be committed; with request_windows.REQUEST_BYTES this bounds the memory of a pass."""

COMMIT_VALUES = 2_000_000
COMMIT_SECONDS = 4.0
"""Answers are committed at this many values or seconds: few large transactions take half the time of many small ones.

The seconds bound what a crash loses.
"""

BATCHES_AT_ONCE = 2
"""Batches that are written while the next one is gathered. They bound the memory."""


async def pull(context: Context, project: ProjectKey, needs: Sequence[plan.Need], result: PassResult) -> None:
    """Bring the history of all these runs up to date with their mirrored records.

    If the number of lines differs from the server's count, or the mirrored lines differ from the server's, the run is
    pulled again completely. A run that cannot be read, or still does not add up, is recorded as failed, will be retried
    later, and does not stop the others. Raises Unreachable or AuthError when the server returns nothing more at all;
    what was committed stays.
    """
    again = await _pull(context, project, needs, result)
    if again:
        await _pull(context, project, again, result)


async def _pull(
    context: Context, project: ProjectKey, needs: Sequence[plan.Need], result: PassResult
) -> list[plan.Need]:
    """Pull once; return the runs that must be pulled again."""
    job = _Job(context, project, result, needs)
    try:
        return await job.run()
    except NoHistory as error:
        # If these runs are at fault after all, the next pass continues with the others.
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
        self.rows_to_come = 0
        # More threads would only compete for the interpreter and slow down the writer.
        self.parser = ThreadPoolExecutor(max_workers=2, thread_name_prefix="parser")
        self.lines = LineFetcher(
            context.server,
            project,
            list(self.needs),
            self.keys,
            ahead=AHEAD,
            executor=self.parser,
            complete_to=self._complete_to,
        )
        self.dropped: set[str] = set()
        self.marks: dict[str, HistoryMark] = {}
        self.replaced: set[str] = set()
        self.ended: set[str] = set()
        # True once a batch went to a segment: those after it most probably will, too.
        self.in_segments = False

    async def run(self) -> list[plan.Need]:
        """Pull everything; return the runs that must be pulled again completely."""
        staged = await self._staged()
        self.marks = await self._marks()
        spans: list[request_windows.Span] = []
        complete: list[str] = []
        for need in self.needs.values():
            run, marked = need.run, self.marks.get(need.run.run_id)
            rows, last = staged[run.run_id] if need.whole else (run.rows, run.last_step)
            missing = max(run.server_rows - rows, 0)
            self.context.progress.rows_expected(self.project, missing)
            self.rows_to_come += missing
            # The last mirrored or staged line is pulled again, to check that the server still has it.
            first = 0 if last is None else last + 1 if marked is None else marked.step
            end = run.server_last_step
            if end is None and missing:
                end = request_windows.LAST_STEP
            if end is None or (marked is None and first > end):
                complete.append(run.run_id)
            else:
                end = first if need.check else max(end, first)
                spans.append(request_windows.Span(run.run_id, first, end, max(missing + (marked is not None), 1)))
        await self._complete(complete)
        ends = {span.run_id: span.last for span in spans}
        writing: deque[asyncio.Task[None]] = deque()
        try:
            async with aclosing(self._fetch_all(spans)) as fetched, aclosing(self._gather(fetched)) as batches:
                async for batch in batches:
                    if len(writing) == BATCHES_AT_ONCE:
                        await writing.popleft()
                    before = writing[-1] if writing else None
                    writing.append(asyncio.create_task(self._commit_and_complete(batch, ends, before)))
        finally:
            for outcome in await asyncio.gather(*writing, return_exceptions=True):
                if outcome is not None:
                    raise outcome
        return await self._to_pull_again()

    async def _marks(self) -> dict[str, HistoryMark]:
        """Return the last line of each run that is mirrored or, of one that is pulled completely, staged."""
        names = [run_id for run_id, need in self.needs.items() if not need.whole and need.run.last_step is not None]
        whole = [run_id for run_id, need in self.needs.items() if need.whole]

        def read(db: Database) -> dict[str, HistoryMark]:
            mirrored = stored_history.marks(db, self.project, names) if names else {}
            return mirrored | (stored_history.marks(db, self.project, whole, "staged_keys") if whole else {})

        return await self.context.writer.read(read) if names or whole else {}

    async def _to_pull_again(self) -> list[plan.Need]:
        """Return the runs whose lines do not add up, to be pulled completely."""
        tried = {run_id: need for run_id, need in self.needs.items() if not need.whole or run_id in self.replaced}
        tried = {run_id: need for run_id, need in tried.items() if run_id not in self.dropped - self.replaced}
        if not tried:
            return []
        known = await self.context.writer.read(lambda db: stored_runs.known(db, self.project, list(tried)))
        again: list[plan.Need] = []
        short: dict[str, str] = {}
        for run_id, need in tried.items():
            now = known[run_id]
            if run_id in self.replaced or (plan.miscounts(now) and need.run.rows):
                again.append(plan.Need(now, whole=True, thorough=True))
            elif plan.miscounts(now):
                # All of it was requested just now.
                short[run_id] = self._miscounted(now.server_rows, now.rows, run_id)
            elif now.rows < now.server_rows and run_id in self.ended:
                self.result.failed[run_id] = self._miscounted(now.server_rows, now.rows, run_id)

        def write(tx: Transaction) -> None:
            self._record_failures(tx, short)
            # What is staged of a run that was rewound since is of no use.
            refresh.request_history(tx, self.project, sorted(self.replaced))

        if short or self.replaced:
            await self.context.writer.write(write)
        return again

    def _miscounted(self, counted: int, returned: int, run_id: str) -> str:
        return (
            f"the server counts {counted} history lines of {self.project}/{run_id} but returned {returned}; "
            "these are mirrored"
        )

    async def _commit_and_complete(
        self, batch: Batch, ends: Mapping[str, int], before: asyncio.Task[None] | None
    ) -> None:
        """Commit the batch after the one `before`, and complete the runs whose last window it contains."""
        drafted = await self._draft(batch)
        try:
            if before is not None:
                await before
            await self._commit(batch, drafted)
        finally:
            if drafted is not None:
                drafted.discard()
        await self._complete(
            window.run_id
            for window in batch.windows
            if window.run_id not in self.dropped and window.end > ends[window.run_id]
        )

    async def _gather(self, batches: AsyncGenerator[Batch]) -> AsyncGenerator[Batch]:
        """Merge answers until they are worth a transaction, or the first of them has waited long enough."""
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
            # What arrived before the failure is kept.
            if gathered.windows:
                yield gathered
            raise
        if gathered.windows:
            yield gathered

    async def _fetch_all(self, spans: Sequence[request_windows.Span]) -> AsyncGenerator[Batch]:
        """Yield exported history from files, then everything else from lines."""
        exported = Exported(self.context, self.project, self.keys, self.parser, self.needs)
        async with aclosing(exported.fetch(spans)) as files:
            async for batch in files:
                yield batch
        async with aclosing(self.lines.fetch(exported.left, dropped=self.dropped)) as lines:
            async for batch in lines:
                yield batch

    async def _staged(self) -> dict[str, staging.Extent]:
        """Return the rows and last step that an interrupted pass staged of the runs that are pulled completely."""
        whole = [run_id for run_id, need in self.needs.items() if need.whole]
        if not whole:
            return {}

        def look(tx: Transaction) -> dict[str, staging.Extent]:
            staged = staging.staged(tx.db, self.project, whole)
            useless = []
            for run_id, (rows, _) in staged.items():
                run = self.needs[run_id].run
                if rows > run.server_rows or not run.refresh:
                    useless.append(run_id)
                    staged[run_id] = (0, None)
            if useless:
                refresh.request_history(tx, self.project, useless)
            return staged

        return await self.context.writer.write(look)

    def _complete_to(self, window: Window) -> int | None:
        """Return up to which step an answer is complete. If the last step is unknown, more lines may follow."""
        return None if self.needs[window.run_id].run.server_last_step is None else window.end - 1

    async def _draft(self, batch: Batch) -> bulk.Draft | None:
        """Write the segment of a batch in a thread of its own: the writer may be busy with the batch before."""
        pages = [page for window, page in batch.pages if window.run_id not in self.dropped]
        if not self.in_segments or any(self.needs[page.run_id].whole for page in pages):
            return None
        folder = self.context.writer.segments
        return await in_thread(partial(bulk.draft, folder, self.project, pages), _discard)

    async def _commit(self, batch: Batch, drafted: bulk.Draft | None) -> None:
        """Commit rows, and the cursors that cover them, in one transaction."""
        for run_id in batch.gone:
            self.dropped.add(run_id)
        newly_failed = {run_id: error for run_id, error in batch.failed.items() if run_id not in self.dropped}
        self.dropped.update(newly_failed)
        compared = [(window, self._compared(page)) for window, page in batch.pages]
        # A page after a gap would advance the cursor past the gap, so nothing of a failed run is kept.
        pages = [page for window, page in compared if window.run_id not in self.dropped]
        append = [page for page in pages if not self.needs[page.run_id].whole]
        stage = [page for page in pages if self.needs[page.run_id].whole]

        rows = sum(page.rows for page in pages)
        values = sum(page.values.num_rows for page in pages)
        self.rows_to_come = max(0, self.rows_to_come - rows)
        to_come = round(self.rows_to_come * values / rows) if rows else 0

        await self._write(append, stage, newly_failed, to_come, drafted)
        self.result.rows += rows
        self.context.progress.rows_done(self.project, rows)

    async def _write(
        self,
        append: Sequence[HistoryPage],
        stage: Sequence[HistoryPage],
        failed: Mapping[str, CommError],
        to_come: int,
        drafted: bulk.Draft | None = None,
    ) -> None:
        """Write these pages in one transaction; a run whose values the store does not accept is recorded as failed."""

        def commit(tx: Transaction) -> None:
            if append:
                self.in_segments = stored_history.append(tx, self.project, append, to_come=to_come, drafted=drafted)
            if stage:
                staging.stage(tx, self.project, stage, to_come=to_come)
            self._record_failures(tx, failed)

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
        """Return the page without the last mirrored line; if the server's differs, the run is pulled completely."""
        run = self.needs[page.run_id].run
        last = self.marks.pop(page.run_id, None)
        if last is not None and page.run_id not in self.dropped:
            if mark.matches(last, page, self.keys):
                page = mark.without_marked(last, page)
            else:
                self.replaced.add(page.run_id)
                self.dropped.add(page.run_id)
        if run.state in LIVE_STATES and mark.reaches(page, run.server_last_step):
            self.ended.add(page.run_id)
        return page

    async def give_up(self, failed: Mapping[str, CommError]) -> None:
        """Record these runs as failed, to be retried later."""
        await self.context.writer.write(lambda tx: self._record_failures(tx, failed))

    def _record_failures(self, tx: Transaction, failed: Mapping[str, CommError | str]) -> None:
        errors = {run_id: str(error) for run_id, error in failed.items()}
        now = utc_now()
        failures = {
            run_id: (error, retries.retry_at(self.needs[run_id].run.attempts, now)) for run_id, error in errors.items()
        }
        history_cursors.record_failures(tx, self.project, failures)
        self.result.failed |= errors

    async def _complete(self, run_ids: Iterable[str]) -> None:
        """Swap in the histories of runs that were pulled completely, and compare their counts with the server's."""
        whole = [run_id for run_id in run_ids if self.needs[run_id].whole]

        def finish(tx: Transaction) -> None:
            extents: dict[str, staging.Extent] = {}
            short: dict[str, str] = {}
            for run_id, (rows, staged_last) in staging.staged(tx.db, self.project, whole).items():
                run = self.needs[run_id].run
                extents[run_id] = (rows, staged_last if run.server_last_step is None else run.server_last_step)
                if rows != run.server_rows and run.state not in LIVE_STATES:
                    short[run_id] = self._miscounted(run.server_rows, rows, run_id)
                elif rows < run.server_rows and run_id in self.ended:
                    self.result.failed[run_id] = self._miscounted(run.server_rows, rows, run_id)
            staging.swap(tx, self.project, extents)
            self._record_failures(tx, short)

        if whole:
            await self.context.writer.write(finish)


def _discard(drafted: bulk.Draft | None) -> None:
    if drafted is not None:
        drafted.discard()
