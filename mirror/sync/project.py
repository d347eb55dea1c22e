"""One pass over one project: list the changed runs, pull their records, then what is missing of their history."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from functools import partial
from math import nan

from mirror.errors import MirrorError
from mirror.remote import runs as remote
from mirror.remote.about import About
from mirror.remote.client import NotFound
from mirror.remote.runs import Page, PageSize, RunHead
from mirror.store.records import KnownRun, ProjectCursor, ProjectKey, RunRecord
from mirror.store.writes import Writes
from mirror.sync import console_and_files, facts, history, key_scope, plan
from mirror.sync import heads as listing
from mirror.sync.context import Context, PassResult, utc_now
from mirror.sync.flaws import bare, is_of_data, unexpected
from mirror.sync.heads import Listed

log = logging.getLogger("mirror.sync")


async def sync_project(
    context: Context,
    project: ProjectKey,
    *,
    run_ids: Sequence[str] = (),
    afresh: bool = False,
    since: datetime | None = None,
) -> PassResult:
    """Bring one project, or some of its runs, up to date. A failure is returned in the result, never raised.

    With `afresh`, everything is pulled again, whether it seems changed or not; readers see the old values until the new
    ones are complete. With `since`, runs that neither started nor logged since then are left for a later pass without
    it: this pass does not move the cursor, and does not count as a success of the whole project.
    """
    started = time.monotonic()
    requests = context.server.count_requests(str(project))
    one_pass = _Pass(context, project)
    whole = not run_ids
    try:
        if afresh:
            await forget(context, project, run_ids)
        await one_pass.begin()
        if run_ids:
            await one_pass.pull_named(run_ids)
        elif since is not None and plan.leaves_out(one_pass.cursor, since):
            whole = False
            await one_pass.pull_recent(since)
        else:
            await one_pass.pull_changed(afresh=afresh)
        await one_pass.store_facts()
        await one_pass.pull_the_rest()
    except MirrorError as error:
        one_pass.result.error = str(error)
        one_pass.result.failure = error
        one_pass.result.exit_code = error.exit_code
    except Exception as error:
        # The passes over other projects must go on.
        log.exception("the pass over %s ended with an unexpected error", project)
        one_pass.result.error = unexpected(project, error)
        one_pass.result.exit_code = MirrorError.exit_code
    result = one_pass.result
    result.requests = requests.total()
    result.seconds = time.monotonic() - started
    await one_pass.end(whole=whole)
    context.progress.finished(result)
    return result


async def forget(context: Context, project: ProjectKey, run_ids: Sequence[str] = ()) -> bool:
    """Mark everything that is mirrored of the project, or of these runs, to be pulled again by the next pass.

    Returns True if anything is mirrored of it. Readers see the old values until then. The mark survives the end of the
    process.
    """

    def write(tx: Writes) -> None:
        wanted = [
            run.run_id
            for run in known.values()
            if not (run.deleted or run.local or run.ahead) and (not run_ids or run.run_id in run_ids)
        ]
        tx.request_refresh(project, wanted)
        if not run_ids:
            tx.set_cursor(project, ProjectCursor())

    known = await context.writer.read(lambda store: store.known_runs(project))
    if not known or (run_ids and not known.keys() & set(run_ids)):
        return False
    await context.writer.write(write)
    return True


def _settle(project: ProjectKey, run_ids: Sequence[str], tx: Writes) -> None:
    tx.settle_records(project, run_ids)


class _Pass:
    """The steps of one pass and what they share."""

    def __init__(self, context: Context, project: ProjectKey) -> None:
        self.context = context
        self.project = project
        self.scope = dict(context.scope.filters)
        self.result = PassResult(project)
        self.size = PageSize()
        # Not all mirrored runs, only those that may need work and those that were looked up.
        self.known: dict[str, KnownRun] = {}
        self.mirrored = 0
        self.cursor = ProjectCursor()
        self.changed: set[str] = set()
        # Runs that ended with a new heartbeat but no new line, with the time of their last line.
        self.moved: dict[str, object] = {}
        self.among: set[str] | None = None
        self.seen: set[str] | None = None
        self.about: About | None = None
        self.listed_all = False

    async def begin(self) -> None:
        """Read the mirror's state. A project is added to the store only once the server has shown that it exists."""
        self.about = await facts.due(self.context)
        self.known, (self.mirrored, _), self.cursor = await self.context.writer.read(
            lambda store: (
                store.unsettled_runs(self.project),
                store.count_runs(self.project),
                store.cursor(self.project),
            )
        )
        app = self.context.server.app_url
        if await self.context.writer.read(lambda store: store.app_url(self.project)) != app:
            await self.context.writer.write(lambda tx: tx.set_app_url(self.project, app))
        # While no history is mirrored, the existing one still has the old globs.
        if self.context.scope.history and self.cursor.history != self.context.scope.history_text:
            former, self.cursor = self.cursor, replace(self.cursor, history=self.context.scope.history_text)
            if self.mirrored:
                await self._apply_globs(former.history)

    async def _apply_globs(self, former: str | None) -> None:
        """Mark the runs whose history lacks keys of the new globs to be pulled again, and store the new globs."""
        again = []
        if former is not None and plan.widened(former, self.context.scope.history):
            writer = self.context.writer
            await self._read_known()
            again = await key_scope.lacking(
                self.context.server,
                self.project,
                self.known,
                (former, self.context.scope.history),
                lambda names: writer.read(lambda store: store.key_rows(self.project, names)),
            )

        def write(tx: Writes) -> None:
            tx.refresh_history(self.project, again)
            tx.set_cursor(self.project, self.cursor)

        await self.context.writer.write(write)
        if again:
            await self._read_known()

    async def _look_up(self, run_ids: Iterable[str]) -> None:
        """Read the mirror's state of those runs that were not read yet."""
        if wanted := [run_id for run_id in run_ids if run_id not in self.known] if self.mirrored else []:
            self.known |= await self.context.writer.read(lambda store: store.known_runs(self.project, wanted))

    async def pull_changed(self, *, afresh: bool) -> None:
        """Find the changed runs and pull their records; the cursor moves with the last of them."""
        covered_to = self.cursor.covered_to
        everything = covered_to is None
        if everything and (afresh or not self.mirrored):
            total = await self._pull_matching(self.scope)
        else:
            listed = await listing.changed(
                self.context.server, self.project, self.cursor, self.known, self.scope, self.about
            )
            total = listed.total
            self.seen = {head.run_id for head in listed.runs}
            await self._look_up(self.seen)
            covered_to = plan.covered(listed.runs, listed.known_to, covered_to)
            if wanted := plan.decide(self.known, listed.runs, server_now=listed.known_to, now=utc_now()).pull:
                await self._pull_by_name(wanted, covered_to)
            elif covered_to != self.cursor.covered_to:
                await self._move_cursor(covered_to)
        await self._reconcile_if_due(total)

    async def pull_recent(self, since: datetime) -> None:
        """Pull the changed ones of the runs that started or logged since; the cursor stays, nothing is reconciled."""
        listed = await self._heads(plan.recent_filter(since, self.scope))
        self.among = {head.run_id for head in listed.runs}
        await self._look_up(self.among)
        self.result.older = max(listed.total - len(listed.runs), 0)
        if wanted := self._new(listed.runs):
            await self._pull_by_name(wanted, None)

    def _new(self, heads: Iterable[RunHead]) -> list[str]:
        return [head.run_id for head in heads if plan.is_new(head, self.known.get(head.run_id))]

    async def _heads(self, filters: dict[str, object]) -> Listed:
        return await listing.heads(self.context.server, self.project, scope=self.scope, filters=filters)

    async def _pull_matching(self, filters: dict[str, object]) -> int:
        """Pull every record that matches, page by page; the cursor is committed with the last page."""
        uncommitted: list[RunRecord] | None = None
        total = 0
        newest = started = None
        async with aclosing(self._records(self.scope, filters, self.about)) as pages:
            async for page in pages:
                if uncommitted is None:
                    self.context.progress.runs_expected(self.project, page.total)
                    started = plan.known_to(page)
                else:
                    await self._upsert(uncommitted, None)
                uncommitted = page.runs
                total = page.total
                newest = plan.newest(page.runs, newest)
        await self._upsert(uncommitted or [], plan.covered([], started, newest))
        return total

    def _records(
        self, scope: dict[str, object], filters: dict[str, object], about: About | None = None
    ) -> AsyncGenerator[Page[RunRecord]]:
        return remote.records(
            self.context.server, self.project, scope=scope, filters=filters, size=self.size, about=about
        )

    async def _all_records(
        self, scope: dict[str, object], filters: dict[str, object], about: About | None = None
    ) -> list[RunRecord]:
        records: list[RunRecord] = []
        async with aclosing(self._records(scope, filters, about)) as pages:
            async for page in pages:
                records += page.runs
        return records

    async def _pull_by_name(self, wanted: Sequence[str], covered_to: datetime | None) -> None:
        """Pull the records of these runs; the cursor is committed with the last of them."""
        self.context.progress.runs_expected(self.project, len(wanted))
        start = 0
        while start < len(wanted):
            names = list(wanted[start : start + self.size.runs])
            records = await self._all_records(self.scope, plan.both({"name": {"$in": names}}, self.scope))
            start += len(names)
            await self._upsert(records, covered_to if start >= len(wanted) else None)
            # A run that the server does not return any more would be requested again in every pass.
            if missing := set(names) & self.known.keys() - {record.run_id for record in records}:
                await self.context.writer.write(partial(_settle, self.project, sorted(missing)))

    async def pull_named(self, run_ids: Sequence[str]) -> None:
        """Pull only these runs, regardless of the config's filter; the project's cursor does not move."""
        self.among = set(run_ids)
        await self._look_up(self.among)
        self.context.progress.runs_expected(self.project, len(run_ids))
        records = await self._all_records({}, {"name": {"$in": list(run_ids)}}, self.about)
        await self._upsert(records, None)
        if self.context.scope.files:
            # Also of live runs, whose lists wait for their turn otherwise: files may be why the run was named.
            named = list(self.among)
            await self.context.writer.write(lambda tx: tx.forget_file_lists(self.project, named))
        missing = set(run_ids) - {record.run_id for record in records}
        mirrored = sorted(run_id for run_id in missing & self.known.keys() if not self.known[run_id].local)
        if mirrored:
            await self._mark_deleted(mirrored)
        if unknown := sorted(missing - self.known.keys()):
            where = self.context.server.base_url
            raise NotFound(
                f"no run {', '.join(unknown)} in {self.project} on {where}; the last part of a path is a run id"
            )

    async def _upsert(self, records: Sequence[RunRecord], covered_to: datetime | None) -> None:
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
                await self._upsert(records[:middle], None)
                await self._upsert(records[middle:], covered_to)

    async def _commit(self, records: Sequence[RunRecord], covered_to: datetime | None) -> None:
        await self._look_up(record.run_id for record in records)
        now = utc_now()

        def write(tx: Writes) -> None:
            tx.add_project(self.project)
            tx.upsert_runs(records, now=now)
            tx.adopt_local(self.project, records)
            if again := [record.run_id for record in records if self._is_replaced(record)]:
                tx.request_refresh(self.project, again)
            if readable := [record.run_id for record in records if not record.flaw and self._was_flawed(record)]:
                tx.forget_failures(self.project, readable)
            for record in records:
                if record.flaw:
                    known = self.known.get(record.run_id)
                    again_at = plan.retry_at(known.attempts if known else 0, now)
                    tx.set_aside(self.project, record.run_id, error=record.flaw, next_try_at=again_at)
            tx.set_cursor(self.project, cursor)

        cursor = self.cursor if covered_to is None else replace(self.cursor, covered_to=covered_to)
        await self.context.writer.write(write)
        self.cursor = cursor
        self.result.failed |= {record.run_id: record.flaw for record in records if record.flaw}
        self.changed.update(record.run_id for record in records)
        for record in records:
            known = self.known.get(record.run_id)
            if known is not None and plan.went_on(record, known):
                self.moved[record.run_id] = record.summary.get("_timestamp")
        self.result.runs += len(records)
        self.result.new_runs += sum(record.run_id not in self.known for record in records)
        self.context.progress.runs_done(self.project, len(records))

    def _was_flawed(self, record: RunRecord) -> bool:
        known = self.known.get(record.run_id)
        return known is not None and known.flawed

    def _is_replaced(self, record: RunRecord) -> bool:
        known = self.known.get(record.run_id)
        return plan.shrank(record, known) or (plan.is_other(record, known) and not (known and known.ahead))

    async def _move_cursor(self, covered_to: datetime | None) -> None:
        cursor = replace(self.cursor, covered_to=covered_to)
        await self.context.writer.write(lambda tx: tx.set_cursor(self.project, cursor))
        self.cursor = cursor

    async def _reconcile_if_due(self, total: int) -> None:
        """List all runs if that is due: by time, after a change of the filter, or if the server's count differs."""
        scope = self.context.scope
        if plan.lists_all(
            self.cursor,
            filters=scope.filters_text,
            interval=scope.reconcile_interval,
            on_server=await self._on_server(),
            total=total,
            now=utc_now(),
        ):
            await self._reconcile()
        elif self.cursor.reconciled_at is None:
            await self._reconciled(None)

    async def _read_known(self) -> None:
        self.known = await self.context.writer.read(lambda store: store.known_runs(self.project))

    async def _on_server(self) -> int:
        """Return how many mirrored runs should exist on the server."""
        return (await self.context.writer.read(lambda store: store.count_runs(self.project)))[1]

    async def _reconcile(self) -> None:
        """List every run: pull those with silent edits, mark the deleted ones."""
        self.listed_all = True
        await self._read_known()
        listed = await self._heads(self.scope)
        ids = self.seen = {head.run_id for head in listed.runs}
        suspects = plan.gone(self.known, ids)
        wanted = self._new(listed.runs)
        # A listing that changes while it is paged may miss a run, so each is checked by name before it is deleted.
        if suspects:
            present = await listing.present(self.context.server, self.project, suspects, self.scope)
            wanted += sorted(present)
            if gone := [run_id for run_id in suspects if run_id not in present]:
                await self._mark_deleted(gone)
        if wanted:
            await self._pull_by_name(wanted, self.cursor.covered_to)
        await self._reconciled(None if await self._on_server() == listed.total else listed.total)

    async def _reconciled(self, unexplained_runs: int | None) -> None:
        cursor = replace(
            self.cursor,
            reconciled_at=utc_now(),
            unexplained_runs=unexplained_runs,
            filters=self.context.scope.filters_text,
        )

        def write(tx: Writes) -> None:
            tx.add_project(self.project)
            tx.set_cursor(self.project, cursor)

        await self.context.writer.write(write)
        self.cursor = cursor

    async def _mark_deleted(self, run_ids: Sequence[str]) -> None:
        now = utc_now()
        await self.context.writer.write(lambda tx: tx.mark_deleted(self.project, run_ids, at=now))
        self.result.deleted += len(run_ids)

    async def store_facts(self) -> None:
        """Store the facts of project and server that came with the runs, and pull those that an older version lacks."""
        if self.about is not None:
            await facts.keep(self.context, self.project, self.about)
        await facts.complete(self.context, self.project)

    async def pull_the_rest(self) -> None:
        """Pull what is missing of the history, console, files and system metrics of the runs of this pass."""
        now = utc_now()
        among = self.among
        selected = await self.context.writer.read(
            lambda store: store.unsettled_runs(self.project) if among is None else store.known_runs(self.project, among)
        )
        runs = list(selected.values())
        # A live run that a new filter excludes must not make the daemon poll as if it were still mirrored.
        self.result.live = sum(
            run.state in plan.LIVE_STATES
            and not run.deleted
            and not run.local
            and (self.seen is None or run.run_id in self.seen)
            for run in runs
        )
        if recovered := [run.run_id for run in runs if plan.has_recovered(run, now)]:
            await self.context.writer.write(lambda tx: tx.forget_failures(self.project, recovered))
        if self.context.scope.history:
            needs = [need for run in runs if (need := plan.need(run, now))]
            needs += await self._doubtful({need.run.run_id for need in needs})
            if needs:
                await history.pull(self.context, self.project, needs, self.result)
        for run in runs:
            if run.error and run.run_id not in self.result.failed and run.next_try_at and plan.waits(run, now):
                self.result.failed[run.run_id] = f"{run.error} (next try at {run.next_try_at:%Y-%m-%d %H:%M} UTC)"
        if self.context.scope.history:
            await facts.find_exports(self.context, self.project, None if self.listed_all else sorted(self.changed))
        await console_and_files.pull(self.context, self.project, changed=self.changed, among=among, result=self.result)

    async def _doubtful(self, excluded: Collection[str]) -> list[plan.Need]:
        """Return the runs that ended with a new heartbeat, but with the same line count and last step as before.

        They may have been rewound and logged up to the same step again. The time of the last line, which the summary
        holds, distinguishes most of them from those that only ended.
        """
        if not (names := self.moved.keys() - excluded):
            return []
        known, marks = await self.context.writer.read(
            lambda store: (
                store.known_runs(self.project, names),
                store.history_marks(self.project, sorted(names)),
            )
        )
        return [
            plan.Need(known[run_id], whole=False, check=True)
            for run_id, mark in marks.items()
            if mark.numbers.get("_timestamp", nan) != self.moved[run_id] and plan.is_settled(known[run_id], utc_now())
        ]

    async def end(self, *, whole: bool) -> None:
        """Record the outcome of a pass over a `whole` project, if the store knows the project."""
        result, now = self.result, utc_now()
        error = result.error
        if not whole:
            return

        def write(tx: Writes) -> None:
            if error is None:
                tx.record_success(self.project, now)
            else:
                tx.record_failure(self.project, error, now)

        try:
            known = await self.context.writer.read(lambda store: self.project in store.projects())
            if known:
                await self.context.writer.write(write)
        except MirrorError as problem:
            if result.error is None:
                result.error, result.exit_code = str(problem), problem.exit_code
        except Exception as problem:
            log.exception("the outcome of the pass over %s could not be recorded", self.project)
            if result.error is None:
                result.error, result.exit_code = unexpected(self.project, problem), MirrorError.exit_code
