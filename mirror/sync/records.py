"""Pulls the records of a project's runs, and commits them together with the cursor that covers them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from math import nan
from typing import Any

from msgspec.structs import replace

from mirror.protocol import LIVE_STATES
from mirror.remote import runs as remote
from mirror.remote.about import About
from mirror.remote.page_size import PageSize
from mirror.remote.runs import Page
from mirror.store import console as stored_console
from mirror.store import history as stored_history
from mirror.store import history_cursors, local, projects, refresh, retries
from mirror.store import runs as stored_runs
from mirror.store.records import KnownRun, ProjectCursor, ProjectKey, RunRecord
from mirror.store.transaction import Transaction
from mirror.sync import plan
from mirror.sync.context import Context, PassResult, utc_now
from mirror.sync.early import EarlyRecords
from mirror.sync.flaws import bare, is_of_data

PAGES_AT_ONCE = 3
"""Pages of records in one commit; a page has about `remote.page_size.PAGE_BYTES`.

Two pages mostly have less than the 122,880 leaves of one of DuckDB's row groups, which it then writes to its log first.
"""

SECONDS_AT_ONCE = 2.0
"""Records that arrived this long ago are committed with the next page, however few they are."""


class Commits:
    """Runs one commit at a time, in the order in which they are begun, while its caller goes on."""

    def __init__(self) -> None:
        self._running: asyncio.Task[None] | None = None

    async def begin(self, commit: Coroutine[Any, Any, None]) -> None:
        """Wait for the commit before this one, then start it. Raises the error of the one before."""
        try:
            await self.end()
        except BaseException:
            commit.close()
            raise
        self._running = asyncio.create_task(commit)

    async def end(self) -> None:
        """Wait for the last commit. Raises its error, once."""
        running, self._running = self._running, None
        if running is not None:
            await running


class Records:
    """What one pass knows of a project's runs, and how it pulls more.

    `known` has not all mirrored runs, only those that may need work and those that were looked up. `changed` are the
    runs whose records were pulled. `early` are records that were requested before. `reread` is set once `known` was
    read again.
    """

    def __init__(self, context: Context, project: ProjectKey, result: PassResult) -> None:
        self.context = context
        self.project = project
        self.result = result
        self.scope = dict(context.scope.filters)
        self.early: EarlyRecords | None = None
        self.size = context.sizes.setdefault(project, PageSize())
        self.known: dict[str, KnownRun] = {}
        self.mirrored = 0
        self.reread = False
        self.cursor = ProjectCursor()
        self.changed: set[str] = set()

    async def look_up(self, run_ids: Iterable[str]) -> None:
        """Read the mirror's state of those runs that were not read yet."""
        if wanted := [run_id for run_id in run_ids if run_id not in self.known] if self.mirrored else []:
            self.known |= await self.context.writer.read(lambda db: stored_runs.known(db, self.project, wanted))

    async def pull_matching(self, filters: dict[str, object], about: About | None) -> int:
        """Pull every record that matches, page by page; the cursor is committed with the last of them.

        Records are committed some pages at a time, while the next pages arrive. After an error, those that arrived are
        committed, too.
        """
        total = arrived = 0
        newest = started = first = None
        batch: list[RunRecord] = []
        pages_in_batch = 0
        begun = time.monotonic()
        commits = Commits()
        try:
            records = self._records(self.scope, filters, about) if self.early is None else self.early.pages()
            async with aclosing(records) as pages:
                async for page in pages:
                    if first is None:
                        first = page
                        self.context.progress.runs_expected(self.project, page.total)
                        started = plan.known_to(page)
                    batch += page.runs
                    pages_in_batch += 1
                    arrived += len(page.runs)
                    total = page.total
                    newest = plan.newest(page.runs, newest)
                    full = pages_in_batch >= PAGES_AT_ONCE or time.monotonic() - begun > SECONDS_AT_ONCE
                    # The last ones are committed with the cursor.
                    if full and (arrived < total or pages_in_batch > PAGES_AT_ONCE):
                        await commits.begin(self.upsert(batch, None))
                        batch, pages_in_batch, begun = [], 0, time.monotonic()
        except Exception:
            await commits.end()
            if batch:
                await self.upsert(batch, None)
            raise
        finally:
            await commits.end()
        await self.upsert(batch, plan.covered([], started, newest))
        return total

    def _records(
        self, scope: dict[str, object], filters: dict[str, object], about: About | None = None
    ) -> AsyncGenerator[Page[RunRecord]]:
        return remote.records(
            self.context.server, self.project, scope=scope, filters=filters, size=self.size, about=about
        )

    async def all_of(
        self, scope: dict[str, object], filters: dict[str, object], about: About | None = None
    ) -> list[RunRecord]:
        """Return every record that matches the filters."""
        records: list[RunRecord] = []
        async with aclosing(self._records(scope, filters, about)) as pages:
            async for page in pages:
                records += page.runs
        return records

    async def pull_by_name(self, wanted: Sequence[str], covered_to: datetime | None) -> None:
        """Pull the records of these runs; the cursor is committed with the last of them."""
        self.context.progress.runs_expected(self.project, len(wanted))
        start = 0
        while start < len(wanted):
            names = list(wanted[start : start + self.size.runs])
            records = await self.all_of(self.scope, plan.both({"name": {"$in": names}}, self.scope))
            start += len(names)
            await self.upsert(records, covered_to if start >= len(wanted) else None)
            if missing := set(names) & self.known.keys() - {record.run_id for record in records}:
                await self._pull_left_out(sorted(missing))

    async def _pull_left_out(self, run_ids: Sequence[str]) -> None:
        """Pull mirrored runs that the scope leaves out now: what they miss would be missing when it is wider again."""
        records = await self.all_of({}, {"name": {"$in": list(run_ids)}}) if self.scope else []
        await self.upsert(records, None)
        # A run that the server does not return any more would be requested again in every pass.
        if gone := sorted(set(run_ids) - {record.run_id for record in records}):
            await self.context.writer.write(partial(_settle, self.project, gone))

    async def upsert(self, records: Sequence[RunRecord], covered_to: datetime | None) -> None:
        """Commit records, and the cursor that covers them. A record that the store does not accept is stored bare."""
        try:
            await self._commit(records, covered_to)
        except Exception as error:
            if not records or not is_of_data(error):
                raise
            if len(records) == 1:
                await self._commit([bare(records[0], error)], covered_to)
            else:
                middle = len(records) // 2
                await self.upsert(records[:middle], None)
                await self.upsert(records[middle:], covered_to)

    async def _commit(self, records: Sequence[RunRecord], covered_to: datetime | None) -> None:
        await self.look_up(record.run_id for record in records)
        records = self._dated(records)
        now = utc_now()
        flaws: dict[str, tuple[str, datetime]] = {}
        for record in records:
            if record.flaw:
                known = self.known.get(record.run_id)
                flaws[record.run_id] = (record.flaw, retries.retry_at(known.attempts if known else 0, now))

        def write(tx: Transaction) -> None:
            stored_runs.upsert(tx, records, now=now)
            local.adopt(tx, self.project, records)
            if again := [record.run_id for record in records if self._is_replaced(record)]:
                refresh.request(tx, self.project, again)
            self._drop_what_is_gone(tx, records)
            if readable := [record.run_id for record in records if not record.flaw and self._was_flawed(record)]:
                history_cursors.forget_failures(tx, self.project, readable)
            history_cursors.record_failures(tx, self.project, flaws)
            self._doubt(tx, [record for record in records if plan.went_on(record, self.known.get(record.run_id))])
            projects.set_cursor(tx, self.project, cursor)

        cursor = self.cursor if covered_to is None else replace(self.cursor, covered_to=covered_to)
        await self.context.writer.write(write)
        self.cursor = cursor
        self.result.failed |= {record.run_id: record.flaw for record in records if record.flaw}
        self.changed.update(record.run_id for record in records)
        self.result.runs += len(records)
        self.result.new_runs += sum(record.run_id not in self.known for record in records)
        self.context.progress.runs_done(self.project, len(records))

    def _dated(self, records: Sequence[RunRecord]) -> list[RunRecord]:
        """Give records of a server that does not report its time the newest change among them as that time.

        So the newest ones are pulled once more, in case they changed again in the same second. A record that was
        pulled again without a new time is not.
        """
        newest = plan.newest(records, None)
        return [
            replace(record, asked_at=newest)
            if record.asked_at is None and plan.has_new_time(record, self.known.get(record.run_id))
            else record
            for record in records
        ]

    def _drop_what_is_gone(self, tx: Transaction, records: Sequence[RunRecord]) -> None:
        """Delete the console and the system metrics of runs that are pulled again and that have none on the server.

        As their counts of zero ask for nothing, they would be those of an earlier run with the id for ever.
        """
        again = [
            record
            for record in records
            if (known := self.known.get(record.run_id)) and not known.ahead
            if known.refresh or self._is_replaced(record)
        ]
        if silent := [record.run_id for record in again if record.server_log_lines == 0]:
            stored_console.drop_lines(tx, self.project, silent)
        if unmeasured := [record.run_id for record in again if record.server_events == 0]:
            stored_history.drop_system_metrics(tx, self.project, unmeasured)

    def _doubt(self, tx: Transaction, records: Sequence[RunRecord]) -> None:
        """Have the last line of those of these runs compared that may have been rewound and logged as far again.

        The time of the last line, which the summary holds, distinguishes most of them from those that only ended.
        """
        marks = stored_history.marks(tx.db, self.project, [record.run_id for record in records]) if records else {}
        times = {record.run_id: record.summary.get("_timestamp") for record in records}
        # A live run without that time would be compared after each heartbeat; its last one is enough.
        open_ = {record.run_id for record in records if record.state in LIVE_STATES and times[record.run_id] is None}
        doubted = [
            run_id
            for run_id, mark in marks.items()
            if run_id not in open_ and mark.numbers.get("_timestamp", nan) != times[run_id]
        ]
        if doubted:
            history_cursors.doubt(tx, self.project, doubted)

    def _was_flawed(self, record: RunRecord) -> bool:
        known = self.known.get(record.run_id)
        return known is not None and known.flawed

    def _is_replaced(self, record: RunRecord) -> bool:
        known = self.known.get(record.run_id)
        return plan.shrank(record, known) or (plan.is_other(record, known) and not (known and known.ahead))

    async def move_cursor(self, covered_to: datetime | None) -> None:
        """Commit the cursor, when no record is to be pulled."""
        cursor = replace(self.cursor, covered_to=covered_to)
        await self.context.writer.write(lambda tx: projects.set_cursor(tx, self.project, cursor))
        self.cursor = cursor

    async def read_known(self) -> None:
        """Read the mirror's state of all runs."""
        self.reread = True
        self.known = await self.context.writer.read(lambda db: stored_runs.known(db, self.project))

    async def mark_deleted(self, run_ids: Sequence[str]) -> None:
        """Record that the server no longer has these runs."""
        now = utc_now()
        await self.context.writer.write(lambda tx: stored_runs.mark_deleted(tx, self.project, run_ids, at=now))
        self.result.deleted += len(run_ids)


def _settle(project: ProjectKey, run_ids: Sequence[str], tx: Transaction) -> None:
    stored_runs.settle(tx, project, run_ids)
